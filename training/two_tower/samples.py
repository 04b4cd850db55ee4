"""What Two-Tower learns from: items as features, and users as windows of events with the next new item as the answer at each place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from core.types import Item
from core.use_cases import UseCases
from models.content import ContentModel
from models.id_map import IdMap
from models.two_tower import OLDER, ages
from training.data.dataset import Dataset

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

FEATURES = 128
"""Axes that the terms of the catalogue are reduced to (truncated SVD): words that occur together share one."""
NOBODY = -1
MOST_INTERESTS = 3
"""Labels at most that a window pretends its user had declared."""
PROFILE_SHARE = 0.5
"""Share of windows whose user declares something, and of those whose user has a role: both kinds come when serving."""


@dataclass(frozen=True)
class Content:
    """What the items of a dataset say about themselves.

    `vocabulary`: terms and idf, no items; `axes (n_terms, n_features)` f32; `features (n_items, n_features)` f32 by the dataset's rows,
    zeros for an item without an entry; `labels (n_labels, n_terms)` CSR the terms of each category and tag; `item_labels (n_items,
    n_labels)` CSR of ones.
    """

    vocabulary: ContentModel
    axes: Floats
    features: Floats
    labels: sp.csr_matrix
    item_labels: sp.csr_matrix

    @classmethod
    def of(cls, items: IdMap, entries: Sequence[Item], seed: int) -> Content:
        """`items`: the rows of the dataset; `entries`: the catalogue. Terms that one item alone has teach nothing and are left out."""
        fitted = ContentModel.fit(entries)
        shared = np.flatnonzero(np.bincount(fitted.item_vectors.indices, minlength=len(fitted.terms)) >= 2)
        none = sp.csr_matrix((0, len(shared)), dtype=np.float32)
        vocabulary = ContentModel([fitted.terms[column] for column in shared.tolist()], fitted.idf[shared], IdMap([]), none)
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
            for label in dict.fromkeys([*entry.categories, *entry.tags])  # no set: its order differs from run to run
        ]
        where = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        labels = vocabulary.vectors(
            [Item(item_id=name, item_type="", categories=[name]) for name in names]
        )  # as declared interests are read
        ones = np.ones(len(where), np.float32)
        return cls(vocabulary, axes, features, labels, sp.csr_matrix((ones, (where[:, 0], where[:, 1])), shape=(len(items), len(names))))


def _axes(vectors: sp.csr_matrix, seed: int) -> Floats:
    """(n_terms, at most FEATURES) f32."""
    from sklearn.decomposition import TruncatedSVD

    if vectors.shape[1] <= FEATURES:
        return np.eye(vectors.shape[1], dtype=np.float32)
    return np.ascontiguousarray(TruncatedSVD(FEATURES, random_state=seed).fit(vectors).components_.T, dtype=np.float32)


@dataclass(frozen=True)
class Sequences:
    """Every user's events in time order, those without a time first. Events of user u are the rows
    start[u] to end[u].

    `item (n,) int64` rows of `items`, which are those with an event; `event_type (n,)`; `role (n,)` rows of `roles`, NOBODY for none;
    `time (n,)` whole seconds since 1970, 0 if unknown; `upcoming (n + 1,)`: the first row, from here on, at which a user takes something
    good that is new to them, n where there is none.
    """

    start: Integers
    end: Integers
    item: Integers
    event_type: Integers
    role: Integers
    time: npt.NDArray[np.float64]
    upcoming: Integers
    items: IdMap
    roles: list[str]

    @classmethod
    def of(cls, dataset: Dataset, where: npt.NDArray[np.bool_] | None, use_cases: UseCases) -> Sequences:
        """The events in `where` (all). An event made in a use case speaks for a user in its role."""
        chosen = np.arange(dataset.events) if where is None else np.flatnonzero(where)
        time = np.floor(np.nan_to_num(dataset.timestamp[chosen]))
        user = dataset.user[chosen]
        order = np.lexsort((time, user))
        chosen, user, time = chosen[order], user[order], time[order]
        present, item = np.unique(dataset.item[chosen], return_inverse=True)
        new = np.zeros(len(item), np.bool_)
        new[np.unique(user * np.int64(len(present)) + item, return_index=True)[1]] = True
        new &= dataset.weight[chosen] > 0
        ends = np.cumsum(np.bincount(user, minlength=len(dataset.users)))
        named = [use_cases.by_name[name].role if name in use_cases.by_name else "" for name in dataset.use_cases]
        roles = sorted({*named} - {""})
        of_use_case = np.array([roles.index(name) if name else NOBODY for name in named] + [NOBODY], dtype=np.int64)  # -1 finds the last
        return cls(
            start=np.append(0, ends[:-1]),
            end=ends,
            item=item,
            event_type=dataset.event_type[chosen].astype(np.int64),
            role=of_use_case[dataset.use_case[chosen]],
            time=time,
            upcoming=_upcoming(new),
            items=IdMap([dataset.items.ids[row] for row in present.tolist()]),
            roles=roles,
        )

    def without_last(self, rng: np.random.Generator, most: int) -> tuple[Sequences, HeldOut]:
        """The sequences of at most `most` users end before the last thing that was new to them; these things are held out."""
        last = np.full(len(self.start), NOBODY)
        new = np.unique(self.upcoming[:-1])
        new = new[new < len(self.item)]
        last[np.searchsorted(self.end, new, side="right")] = new
        users = np.flatnonzero(last > self.start)
        if len(users) > most:
            users = np.sort(rng.choice(users, most, replace=False))
        end = self.end.copy()
        end[users] = last[users]
        return replace(self, end=end), HeldOut(users, self.item[last[users]])

    def shuffled(self, rng: np.random.Generator) -> Sequences:
        """Each user's events in an order drawn by `rng`, for users who take an item once and in no order that is known."""
        rows, size = np.arange(len(self.item)), len(self.item)
        owner = np.searchsorted(self.start, rows, side="right") - 1
        kept = rows < self.end[owner]
        order = np.lexsort((np.where(kept, rng.random(size), 1.0), owner))
        new = np.zeros(size + 1, np.bool_)
        new[self.upcoming] = True
        moved = {name: getattr(self, name)[order] for name in ("item", "event_type", "role", "time")}
        return replace(self, upcoming=_upcoming(new[:-1][order]), **moved)

    def windows(self, length: int, rng: np.random.Generator) -> Windows:
        """Every user's events cut into windows of at most `length`, from a place drawn anew each time."""
        inputs = np.maximum(self.end - self.start - 1, 0)  # nothing follows the last event
        first = np.where(inputs > length, rng.integers(1, length + 1, len(inputs)), inputs)
        counts = np.where(self.end > self.start, 1 + -(-(inputs - first) // length), 0)
        users = np.repeat(np.arange(len(counts)), counts)
        nth = np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts)
        start = self.start[users] + np.where(nth > 0, first[users] + (nth - 1) * length, 0)
        end = np.minimum(self.start[users] + first[users] + nth * length, self.start[users] + inputs[users])
        return Windows(users, start, end)

    def latest(self, users: Integers, length: int) -> Windows:
        """The latest `length` events of each of `users`."""
        return Windows(users, np.maximum(self.start[users], self.end[users] - length), self.end[users])

    def batch(self, windows: Windows) -> Batch:
        """These windows as padded arrays."""
        sizes = windows.end - windows.start
        size = int(sizes.max(initial=0))
        places = np.arange(size)
        real = places < sizes[:, None]
        rows = np.where(real, windows.start[:, None] + places, 0)
        following = self.upcoming[np.column_stack([windows.start, np.where(real, rows + 1, len(self.item))])]
        answers = np.where(following < self.end[windows.users][:, None], np.append(self.item, 0)[following], NOBODY)
        oldest = np.maximum(self.start[windows.users], windows.start - OLDER)
        before = windows.start - oldest
        offsets = np.cumsum(before) - before
        last = np.maximum(windows.end - 1, windows.start)
        return Batch(
            items=np.where(real, self.item[rows], 0),
            event_types=np.where(real, self.event_type[rows], 0),
            ages=ages(np.where(real, self.time[rows], 0.0)),
            answers=answers,
            sizes=sizes,
            roles=self.role[np.minimum(last, len(self.role) - 1)],
            older=self.item[np.repeat(oldest - offsets, before) + np.arange(before.sum())],
            older_from=offsets,
        )


def _upcoming(new: npt.NDArray[np.bool_]) -> Integers:
    """(n + 1,): the first true place of `new (n,)` from each place on, n where there is none."""
    places = np.where(new, np.arange(len(new)), len(new))
    return np.append(np.minimum.accumulate(places[::-1])[::-1], len(new))


@dataclass(frozen=True)
class HeldOut:
    """`users (n,)` rows, and the item `items (n,)` that each took next."""

    users: Integers
    items: Integers


@dataclass(frozen=True)
class Windows:
    """Window i holds the events start[i] to end[i] of users[i]."""

    users: Integers
    start: Integers
    end: Integers

    def __len__(self) -> int:
        return len(self.users)

    def __getitem__(self, chosen: Any) -> Windows:
        return Windows(self.users[chosen], self.start[chosen], self.end[chosen])

    def batches(self, tokens: int, rng: np.random.Generator) -> Iterator[Windows]:
        """Windows of like length together, about `tokens` a batch with padding, in an order drawn by `rng`."""
        sizes = self.end - self.start + 1
        order = np.argsort(sizes + rng.random(len(sizes)), kind="stable")[::-1]
        cuts = [0]
        while cuts[-1] < len(order):
            cuts.append(min(cuts[-1] + max(1, tokens // int(sizes[order[cuts[-1]]])), len(order)))
        for batch in rng.permutation(len(cuts) - 1).tolist():
            yield self[order[cuts[batch] : cuts[batch + 1]]]


@dataclass(frozen=True)
class Batch:
    """`items`, `event_types (b, s)` and `ages (b, s, s)` of events, padded at the end; `answers (b, s + 1)` the item that is taken
    next after the profile alone and after each event, NOBODY where none is; `sizes (b,)` events of each window; `roles (b,)`; `older (n,)`
    the items before each window, those of window i from older_from[i] on.
    """

    items: Integers
    event_types: Integers
    ages: Integers
    answers: Integers
    sizes: Integers
    roles: Integers
    older: Integers
    older_from: Integers


def declared(batch: Batch, content: Content, rng: np.random.Generator) -> Floats:
    """Profiles (b, n_features) f32: what users might have declared, who did not say: labels of things that they take in the window."""
    chosen, labels = [], content.item_labels
    for place in np.flatnonzero(rng.random(len(batch.answers)) < PROFILE_SHARE).tolist():
        answers = batch.answers[place]
        answers = answers[answers >= 0]
        if not len(answers):
            continue
        for item in rng.choice(answers, rng.integers(1, MOST_INTERESTS + 1)).tolist():
            mine = labels.indices[labels.indptr[item] : labels.indptr[item + 1]]
            if len(mine):
                chosen.append((place, int(rng.choice(mine))))
    where = np.array(chosen, dtype=np.int64).reshape(-1, 2)
    picked = sp.csr_matrix((np.ones(len(where), np.float32), (where[:, 0], where[:, 1])), shape=(len(batch.answers), labels.shape[1]))
    terms = picked @ content.labels
    lengths = np.sqrt(np.asarray(terms.multiply(terms).sum(axis=1))).ravel()
    profiles: Floats = (terms @ content.axes) / np.maximum(lengths, 1e-12)[:, None]
    return profiles.astype(np.float32)
