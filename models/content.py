"""The content model: TF-IDF vectors of items and of declared interests.

The terms come from categories, tags, string attributes, title and text. All fields share one
vocabulary, so a declared interest "fintech" matches the category, the tag and the word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfVectorizer

from core.errors import ModelCorrupt
from core.types import Item
from models import files
from models.id_map import IdMap

Floats = NDArray[np.float32]

MAX_TERMS = 50_000
"""Terms of a vocabulary at most; the most frequent stay. A dense profile has 200 KB at most."""
CATEGORY_WEIGHT, TAG_WEIGHT = 4, 3
"""Term count of a category or a tag, where a word of the text has 1, before the logarithm of
sublinear TF: a curated label says more than a word."""
MAX_WORDS = 2000
"""Words of an item's text that are read at most: bounds the work for one item."""

_WORD = re.compile(r"[^\W_][\w+#.-]*[\w+#]|[^\W\d_]")


class ContentFacts(msgspec.Struct, frozen=True):
    """content.json: the terms, in column order."""

    terms: list[str]


def label(text: str) -> str:
    """A category, tag or interest as a term: lower case, single spaces."""
    return " ".join(text.replace("_", " ").split()).casefold()


def item_terms(item: Item) -> list[str]:
    """The terms of an item; a category or tag is repeated as often as its weight says."""
    terms = [
        term for category in item.categories for term in _label_terms(category)
    ] * CATEGORY_WEIGHT
    terms += [term for tag in item.tags for term in _label_terms(tag)] * TAG_WEIGHT
    for name, value in item.attributes.items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and text:
                terms.append(f"{label(name)}: {label(text)}")
    return terms + _words(f"{item.title or ''} {item.text or ''}")


class ContentModel:
    """A vocabulary with its idf, and the vectors of the items it was fitted on. Immutable."""

    def __init__(
        self, terms: Sequence[str], idf: Floats, item_ids: IdMap, item_vectors: sp.csr_matrix
    ) -> None:
        """`idf` (n_terms,) f32; `item_vectors` (n_items, n_terms) f32 CSR, rows of norm 1 or 0.

        Raises ValueError when the sizes do not fit.
        """
        if idf.shape != (len(terms),) or item_vectors.shape != (len(item_ids), len(terms)):
            raise ValueError(
                f"{len(terms)} terms, idf {idf.shape}, {len(item_ids)} items and vectors "
                f"{item_vectors.shape} do not fit"
            )
        self.terms, self.idf = list(terms), idf
        self.item_ids, self.item_vectors = item_ids, item_vectors
        self._vectorizer: TfidfVectorizer | None = None
        if self.terms:
            self._vectorizer = _vectorizer({term: column for column, term in enumerate(self.terms)})
            self._vectorizer.idf_ = idf.astype(np.float64)

    @classmethod
    def fit(cls, items: Sequence[Item]) -> ContentModel:
        """Fit terms and idf on a catalogue."""
        item_ids = IdMap([item.item_id for item in items])
        term_lists = [item_terms(item) for item in items]
        if not any(term_lists):
            return cls(
                [],
                np.zeros(0, dtype=np.float32),
                item_ids,
                sp.csr_matrix((len(items), 0), dtype=np.float32),
            )
        vectorizer = _vectorizer(None)
        vectors = sp.csr_matrix(vectorizer.fit_transform(term_lists), dtype=np.float32)
        return cls(
            [str(term) for term in vectorizer.get_feature_names_out()],
            vectorizer.idf_.astype(np.float32),
            item_ids,
            vectors,
        )

    def vectors(self, items: Sequence[Item]) -> sp.csr_matrix:
        """Vectors (n, n_terms) f32 CSR of any items: norm 1, or 0 without a known term."""
        return self._transform([item_terms(item) for item in items])

    def profile_from_interests(self, interests: Iterable[str]) -> Floats:
        """Vector (n_terms,) f32 of interests: norm 1, or 0 without a term of the vocabulary."""
        terms = [term for interest in interests for term in _label_terms(interest)]
        profile: Floats = np.asarray(self._transform([terms]).todense(), dtype=np.float32).ravel()
        return profile

    def save(self, folder: Path) -> None:
        """Write content.json, idf.npy, content_item_mapping.json, item_vectors.npz."""
        files.write_json(folder / "content.json", ContentFacts(self.terms))
        files.write_array(folder / "idf.npy", self.idf)
        self.item_ids.save(folder / "content_item_mapping.json")
        files.write_csr(folder / "item_vectors.npz", self.item_vectors)

    @classmethod
    def load(cls, folder: Path, mapped: bool = False) -> ContentModel:
        """Read what `save` wrote; `mapped`: map the item vectors (models.files.read_floats).

        Raises ModelMissing, ModelCorrupt.
        """
        facts = files.read_json(folder / "content.json", ContentFacts)
        idf = files.read_floats(folder / "idf.npy", 1)
        item_ids = IdMap.load(folder / "content_item_mapping.json")
        vectors = files.read_csr(folder / "item_vectors.npz", mapped)
        try:
            return cls(facts.terms, idf, item_ids, vectors)
        except ValueError as error:
            raise ModelCorrupt(f"{folder}: {error}") from None

    def _transform(self, term_lists: list[list[str]]) -> sp.csr_matrix:
        if self._vectorizer is None or not term_lists:
            return sp.csr_matrix((len(term_lists), len(self.terms)), dtype=np.float32)
        return sp.csr_matrix(self._vectorizer.transform(term_lists), dtype=np.float32)


def _vectorizer(vocabulary: dict[str, int] | None) -> TfidfVectorizer:
    return TfidfVectorizer(
        analyzer=_identity,
        vocabulary=vocabulary,
        sublinear_tf=True,
        dtype=np.float32,
        max_features=MAX_TERMS if vocabulary is None else None,
    )


def _identity(terms: list[str]) -> list[str]:
    return terms


def _label_terms(text: str) -> list[str]:
    """The whole label, then its words if it has several: "climate" also matches "climate tech"."""
    whole = label(text)
    words = _words(whole)
    if not whole:
        return []
    return [whole] if words == [whole] else [whole, *words]


def _words(text: str) -> list[str]:
    words = _WORD.findall(text.casefold())[:MAX_WORDS]
    return [word for word in words if word not in ENGLISH_STOP_WORDS]
