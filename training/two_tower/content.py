"""Computes content features of items, and simulates the profiles that users declare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from core.types import Item
from models.content import ContentModel
from models.id_map import IdMap
from training.two_tower.samples import Batch, Floats

FEATURES = 128
"""Dimensions that the terms of the catalogue are reduced to by truncated SVD: words that occur
together share one.
"""
MOST_INTERESTS = 3
"""Most labels that a training window gives its user as declared interests."""
PROFILE_SHARE = 0.5
"""Share of windows with declared interests, and of windows with a role: users with and without both
occur when serving.
"""


@dataclass(frozen=True)
class Content:
    """Content of the items of a dataset.

    `vocabulary`: terms and idf, no items; `axes (n_terms, n_features)` f32; `features (n_items,
    n_features)` f32 by the dataset's rows, zeros for an item without an entry; `labels (n_labels,
    n_terms)` CSR the terms of each category and tag; `item_labels (n_items, n_labels)` CSR of ones.
    """

    vocabulary: ContentModel
    axes: Floats
    features: Floats
    labels: sp.csr_matrix
    item_labels: sp.csr_matrix

    @classmethod
    def of(cls, items: IdMap, entries: Sequence[Item], seed: int) -> Content:
        """`items`: rows of the dataset; `entries`: the catalogue.

        Terms of a single item carry no signal and are dropped.
        """
        fitted = ContentModel.fit(entries)
        shared = np.flatnonzero(
            np.bincount(fitted.item_vectors.indices, minlength=len(fitted.terms)) >= 2
        )
        none = sp.csr_matrix((0, len(shared)), dtype=np.float32)
        vocabulary = ContentModel(
            [fitted.terms[column] for column in shared.tolist()],
            fitted.idf[shared],
            IdMap([]),
            none,
        )
        vectors = vocabulary.vectors(entries)
        axes = _axes(vectors, seed)
        rows = items.rows([entry.item_id for entry in entries])
        known = rows >= 0
        features = np.zeros((len(items), axes.shape[1]), np.float32)
        features[rows[known]] = vectors[known] @ axes
        names: dict[str, int] = {}
        pairs = [
            (row, names.setdefault(label, len(names)))
            for row, entry in zip(rows.tolist(), entries, strict=True)
            if row >= 0
            # no set: its order differs from run to run
            for label in dict.fromkeys([*entry.categories, *entry.tags])
        ]
        where = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        labels = vocabulary.vectors(
            [Item(item_id=name, item_type="", categories=[name]) for name in names]
        )  # as declared interests are read
        ones = np.ones(len(where), np.float32)
        return cls(
            vocabulary,
            axes,
            features,
            labels,
            sp.csr_matrix((ones, (where[:, 0], where[:, 1])), shape=(len(items), len(names))),
        )


def _axes(vectors: sp.csr_matrix, seed: int) -> Floats:
    """(n_terms, at most FEATURES) f32: the term vectors of the truncated SVD.

    With few terms it is the identity.
    """
    from sklearn.decomposition import TruncatedSVD

    if vectors.shape[1] <= FEATURES:
        return np.eye(vectors.shape[1], dtype=np.float32)
    return np.ascontiguousarray(
        TruncatedSVD(FEATURES, random_state=seed).fit(vectors).components_.T, dtype=np.float32
    )


def simulated_profiles(batch: Batch, content: Content, rng: np.random.Generator) -> Floats:
    """(b, n_features) f32: the profiles of simulated users, one a window.

    Declared interests are drawn from the labels of the items in the window; a profile without any
    is zero.
    """
    pairs, labels = [], content.item_labels
    for place in np.flatnonzero(rng.random(len(batch.answers)) < PROFILE_SHARE).tolist():
        answers = batch.answers[place]
        answers = answers[answers >= 0]
        if not len(answers):
            continue
        for item in rng.choice(answers, rng.integers(1, MOST_INTERESTS + 1)).tolist():
            item_labels = labels.indices[labels.indptr[item] : labels.indptr[item + 1]]
            if len(item_labels):
                pairs.append((place, int(rng.choice(item_labels))))
    where = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    picked = sp.csr_matrix(
        (np.ones(len(where), np.float32), (where[:, 0], where[:, 1])),
        shape=(len(batch.answers), labels.shape[1]),
    )
    terms = picked @ content.labels
    lengths = np.sqrt(np.asarray(terms.multiply(terms).sum(axis=1))).ravel()
    profiles: Floats = (terms @ content.axes) / np.maximum(lengths, 1e-12)[:, None]
    return profiles.astype(np.float32)
