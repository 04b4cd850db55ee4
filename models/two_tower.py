"""Scores items by the Two-Tower model: one forward pass in numpy over stored arrays, without torch.

The item tower is stored as one vector for each item: an id embedding plus a projection of the
item's terms. An item that came after the training has the projection alone.

The user tower is a small causal transformer (Vaswani et al. 2017; Kang and McAuley 2018, "SASRec")
over one profile token and the latest events. The profile token contains the declared profile, and
the mean of the items of older events as long-term taste. The token of an event is the item's vector
plus an embedding of the event type. Attention gets order and age from a bias on each pair of tokens
(Raffel et al. 2020; Zhai et al. 2024, "HSTU"), which depends on the distance and the time between
them. With the tokens x (n, d), heads h and RMS norms (Zhang and Sennrich 2019):

    q, k, v = split(norm1(x) W_qkv)
    x += concat_h(softmax(q_h k_h' / sqrt(d / H) + bias_h) v_h) W_out
    x += relu(norm2(x) W_up + b_up) W_down + b_down

The user's vector is the RMS-normed last token after the last layer. The score of an item is the dot
product of both vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from core.errors import ModelCorrupt
from core.types import Item
from models import files
from models.content import ContentModel
from models.id_map import IdMap

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

AGES = 32
"""Age classes: powers of two in seconds. 2^31 s are 68 years."""
OLDER = 450
"""Older events at most, of which the user tower reads only the mean.

With the 50 latest events, which it reads one by one, these are a history of HISTORY_CAP=500."""
UNKNOWN_AGE, PROFILE_AGE = AGES, AGES + 1
"""Age classes of an event without a time, and of the profile token."""
EPSILON = 1e-6
"""Added to a mean square before the root, so that the norm of a zero token is zero, not NaN."""


class TwoTowerFacts(msgspec.Struct, frozen=True):
    """two_tower.json.

    `history`: number of latest events that the user tower reads; `event_types`, `roles`: in the row
    order of their embeddings.
    """

    dimension: int
    layers: int
    heads: int
    history: int
    items: int
    event_types: list[str]
    roles: list[str]


def shapes(facts: TwoTowerFacts, terms: int) -> dict[str, tuple[int, ...]]:
    """Name -> shape of each array except the item vectors; `terms`: size of the vocabulary."""
    d = facts.dimension
    by_name: dict[str, tuple[int, ...]] = {
        "term_vectors": (terms, d),
        "start": (d,),
        "older": (d, d),
        "event_types": (len(facts.event_types) + 1, d),
        "roles": (len(facts.roles), d),
        "distance_bias": (facts.heads, facts.history + 1),
        "age_bias": (facts.heads, AGES + 2),
        "norm": (d,),
    }
    for layer in range(facts.layers):
        by_name |= {
            f"layer{layer}_norm1": (d,),
            f"layer{layer}_qkv": (d, 3 * d),
            f"layer{layer}_out": (d, d),
            f"layer{layer}_norm2": (d,),
            f"layer{layer}_up": (d, 2 * d),
            f"layer{layer}_up_bias": (2 * d,),
            f"layer{layer}_down": (2 * d, d),
            f"layer{layer}_down_bias": (d,),
        }
    return by_name


def ages(timestamps: NDArray[np.float64]) -> Integers:
    """Age classes (..., n, n) int64 of event k (column) at the time of event q (row).

    `timestamps` (..., n): seconds since 1970, 0 where unknown. A class b stands for 2^(b-1) to
    2^b - 1 whole seconds, 0 for the same second; UNKNOWN_AGE where either time is unknown.
    """
    seconds = np.floor(timestamps)
    elapsed = np.maximum(seconds[..., :, None] - seconds[..., None, :], 0.0)
    classes: Integers = np.minimum(np.frexp(elapsed)[1].astype(np.int64), AGES - 1)
    unknown = seconds <= 0
    classes[unknown[..., :, None] | unknown[..., None, :]] = UNKNOWN_AGE
    return classes


class TwoTowerModel:
    """Item vectors and the user tower. Immutable."""

    def __init__(
        self,
        facts: TwoTowerFacts,
        item_ids: IdMap,
        item_vectors: Floats,
        vocabulary: ContentModel,
        arrays: Mapping[str, Floats],
    ) -> None:
        """`item_vectors` (n_items, d) f32; `vocabulary`: terms and idf, without items.

        `arrays`: those that `shapes` names, f32. Raises ValueError when one has another shape.
        """
        if (
            facts.dimension % max(facts.heads, 1)
            or min(facts.dimension, facts.heads, facts.history) < 1
        ):
            raise ValueError(
                f"a dimension of {facts.dimension} cannot be split into {facts.heads} heads"
            )
        _check("item_vectors", item_vectors, (len(item_ids), facts.dimension))
        for name, shape in shapes(facts, len(vocabulary.terms)).items():
            if name not in arrays:
                raise ValueError(f"the array {name} is missing")
            _check(name, arrays[name], shape)
        self.facts, self.item_ids = facts, item_ids
        self.item_vectors, self.vocabulary = item_vectors, vocabulary
        self.arrays = dict(arrays)
        self.dimension, self.history = facts.dimension, facts.history
        self._type_rows = {name: row for row, name in enumerate(facts.event_types)}
        self._role_rows = {name: row for row, name in enumerate(facts.roles)}
        norms = np.sqrt(np.einsum("ij,ij->i", item_vectors, item_vectors))
        self._inverse_norms: Floats = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
        size = facts.history + 1
        places = np.arange(size)
        distance = np.clip(places[:, None] - places, 0, facts.history)
        self._bias: Floats = np.ascontiguousarray(arrays["distance_bias"][:, distance])
        self._bias[:, :, 0] += arrays["age_bias"][:, PROFILE_AGE, None]
        self._bias[:, places[:, None] < places] = -np.inf
        self._age_bias = np.ascontiguousarray(arrays["age_bias"])

    def content_vectors(self, items: Sequence[Item]) -> Floats:
        """Vectors (n, d) f32 of any items by their terms alone; zeros without a known term."""
        return self._projected(self.vocabulary.vectors(items))

    def profile_vector(self, interests: Sequence[str], roles: Sequence[str]) -> Floats:
        """The declared part (d,) f32 of the profile token; zeros without a known term or role."""
        profile: Floats = (
            self.vocabulary.profile_from_interests(interests) @ self.arrays["term_vectors"]
        )
        for role in roles:
            if (row := self._role_rows.get(role)) is not None:
                profile = profile + self.arrays["roles"][row]
        return profile

    def type_rows(self, event_types: Sequence[str]) -> Integers:
        """Rows (n,) int64 of the embeddings of event types; the last row for an unknown type."""
        unknown = len(self._type_rows)
        return np.array(
            [self._type_rows.get(name, unknown) for name in event_types], dtype=np.int64
        )

    def older_part(self, vectors: Floats) -> Floats:
        """The part (d,) f32 of the profile token for older events.

        `vectors` (n, d) f32: the item vectors of at most the latest OLDER of these events.
        """
        if not len(vectors):
            return np.zeros(self.dimension, dtype=np.float32)
        part: Floats = vectors.mean(axis=0) @ self.arrays["older"]
        return part

    def user_vector(
        self, vectors: Floats, type_rows: Integers, timestamps: NDArray[np.float64], profile: Floats
    ) -> Floats:
        """The vector (d,) f32 of a user.

        `vectors` (n, d) f32: item vectors of the latest n <= `history` events, oldest first;
        `type_rows` (n,) int64: their types; `timestamps` (n,): seconds since 1970, 0 where unknown;
        `profile` (d,) f32: `profile_vector` plus `older_part`.
        Raises ValueError for more events than `history`.
        """
        n, arrays = len(vectors), self.arrays
        if n > self.history:
            raise ValueError(f"{n} events, but the user tower reads at most {self.history}")
        x = np.empty((n + 1, self.dimension), dtype=np.float32)
        np.add(arrays["start"], profile, out=x[0])
        np.add(vectors, arrays["event_types"][type_rows], out=x[1:])
        bias = self._bias[:, : n + 1, : n + 1].copy()
        bias[:, 1:, 1:] += self._age_bias[:, ages(timestamps)]
        last = self.facts.layers - 1
        for layer in range(self.facts.layers):
            x = self._layer(x, bias, layer, only_last=layer == last)
        return _norm(x[-1], arrays["norm"])

    def scores(self, vector: Floats) -> Floats:
        """Scores (n_items,) f32 of a user vector (d,)."""
        scores: Floats = self.item_vectors @ vector
        return scores

    def cosines(self, vector: Floats) -> Floats:
        """Cosine (n_items,) f32 of all item vectors with `vector` (d,); 0 where either is zero."""
        norm = float(np.linalg.norm(vector))
        cosines: Floats = (self.item_vectors @ vector) * self._inverse_norms
        return cosines / np.float32(norm) if norm else np.zeros_like(cosines)

    def save(self, folder: Path) -> None:
        """Write the facts, the item map, item_vectors.npy, user_tower.npz and vocabulary/."""
        files.write_json(folder / "two_tower.json", self.facts)
        self.item_ids.save(folder / "two_tower_item_mapping.json")
        files.write_array(folder / "item_vectors.npy", self.item_vectors)
        files.write_arrays(folder / "user_tower.npz", self.arrays)
        self.vocabulary.save(folder / "vocabulary")

    @classmethod
    def load(cls, folder: Path, mapped: bool = False) -> TwoTowerModel:
        """Read what `save` wrote; `mapped`: map the arrays (models.files.read_floats).

        Raises ModelMissing and ModelCorrupt, which name the file.
        """
        facts = files.read_json(folder / "two_tower.json", TwoTowerFacts)
        item_ids = IdMap.load(folder / "two_tower_item_mapping.json")
        item_vectors = files.read_floats(folder / "item_vectors.npy", 2, mapped)
        arrays = files.read_arrays(folder / "user_tower.npz", mapped)
        vocabulary = ContentModel.load(folder / "vocabulary")
        try:
            return cls(facts, item_ids, item_vectors, vocabulary, arrays)
        except ValueError as error:
            raise ModelCorrupt(f"{folder}: {error}") from None

    def _projected(self, terms: sp.csr_matrix) -> Floats:
        vectors: Floats = np.ascontiguousarray(
            terms @ self.arrays["term_vectors"], dtype=np.float32
        )
        return vectors

    def _layer(self, x: Floats, bias: Floats, layer: int, only_last: bool) -> Floats:
        """One layer on the tokens `x` (n, d) f32 with `bias` (heads, n, n) f32.

        `only_last`: compute only the last token (1, d), the only output that is used of the last
        layer.
        """
        arrays, heads = self.arrays, self.facts.heads
        d = self.dimension
        normed = _norm(x, arrays[f"layer{layer}_norm1"])
        qkv = arrays[f"layer{layer}_qkv"]
        if only_last:
            x, bias = x[-1:], bias[:, -1:]
        queries = normed[-len(x) :] @ qkv[:, :d]
        keys, values = np.split(normed @ qkv[:, d:], 2, axis=1)
        scale = np.float32((d // heads) ** -0.5)
        products = (_split(queries, heads) * scale) @ _split(keys, heads).transpose(0, 2, 1)
        attention: Any = products + bias
        attention -= attention.max(axis=2, keepdims=True)
        np.exp(attention, out=attention)
        attention /= attention.sum(axis=2, keepdims=True)
        heads_output = (attention @ _split(values, heads)).transpose(1, 0, 2).reshape(len(x), d)
        attended: Floats = x + heads_output @ arrays[f"layer{layer}_out"]
        hidden: Any = (
            _norm(attended, arrays[f"layer{layer}_norm2"]) @ arrays[f"layer{layer}_up"]
            + arrays[f"layer{layer}_up_bias"]
        )
        np.maximum(hidden, 0, out=hidden)
        output: Floats = (
            attended + hidden @ arrays[f"layer{layer}_down"] + arrays[f"layer{layer}_down_bias"]
        )
        return output


def _norm(x: Floats, gain: Floats) -> Floats:
    """RMS norm of `x` (..., d) f32, times `gain` (d,) f32."""
    squares = np.einsum("...i,...i->...", x, x)[..., None] / np.float32(x.shape[-1])
    normed: Floats = x / np.sqrt(squares + np.float32(EPSILON)) * gain
    return normed


def _split(x: Floats, heads: int) -> Floats:
    """Reshape (n, d) to (heads, n, d / heads)."""
    return x.reshape(len(x), heads, -1).transpose(1, 0, 2)


def _check(name: str, array: Any, shape: tuple[int, ...]) -> None:
    if (
        not isinstance(array, np.ndarray)
        or array.dtype != np.float32
        or array.shape != shape
        or not array.flags.c_contiguous
    ):
        raise ValueError(f"{name} must be a C-contiguous float32 array of shape {shape}")
