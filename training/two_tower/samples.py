"""Makes the training examples of Two-Tower: content features of items, and windows of users'
events.

At each place of a window the answer is the next item that is new to the user.
"""

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
"""Dimensions that the terms of the catalogue are reduced to by truncated SVD: words that occur
together share one.
"""
NOBODY = -1
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
    """(n_terms, at most FEATURES) f32: the term vectors of the truncated SVD; the identity for few
    terms.
    """
    from sklearn.decomposition import TruncatedSVD

    if vectors.shape[1] <= FEATURES:
        return np.eye(vectors.shape[1], dtype=np.float32)
    return np.ascontiguousarray(
        TruncatedSVD(FEATURES, random_state=seed).fit(vectors).components_.T, dtype=np.float32
    )


@dataclass(frozen=True)
class Sequences:
    """Every user's events in time order, those without a time first; events of user u are the rows
    start[u] to end[u].

    `item (n,) int64` rows of `items`, which are those with an event; `event_type (n,)`; `role (n,)`
    rows of `roles`, NOBODY for none; `time (n,)` whole seconds since 1970, 0 if unknown; `upcoming
    (n + 1,)`: the first row, from here on, of an event with weight above 0 whose item is new to its
    user; n where there is none.
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
    def of(
        cls, dataset: Dataset, where: npt.NDArray[np.bool_] | None, use_cases: UseCases
    ) -> Sequences:
        """The events in `where` (default: all).

        An event of a use case has the role of that use case.
        """
        rows = np.arange(dataset.events) if where is None else np.flatnonzero(where)
        time = np.floor(np.nan_to_num(dataset.timestamp[rows]))
        user = dataset.user[rows]
        order = np.lexsort((time, user))
        rows, user, time = rows[order], user[order], time[order]
        present, item = np.unique(dataset.item[rows], return_inverse=True)
        new = np.zeros(len(item), np.bool_)
        new[np.unique(user * np.int64(len(present)) + item, return_index=True)[1]] = True
        new &= dataset.weight[rows] > 0
        ends = np.cumsum(np.bincount(user, minlength=len(dataset.users)))
        named = [
            use_cases.by_name[name].role if name in use_cases.by_name else ""
            for name in dataset.use_cases
        ]
        roles = sorted({*named} - {""})
        # -1 finds the last
        of_use_case = np.array(
            [roles.index(name) if name else NOBODY for name in named] + [NOBODY], dtype=np.int64
        )
        return cls(
            start=np.append(0, ends[:-1]),
            end=ends,
            item=item,
            event_type=dataset.event_type[rows].astype(np.int64),
            role=of_use_case[dataset.use_case[rows]],
            time=time,
            upcoming=_upcoming(new),
            items=IdMap([dataset.items.ids[row] for row in present.tolist()]),
            roles=roles,
        )

    def without_last(self, rng: np.random.Generator, most: int) -> tuple[Sequences, HeldOut]:
        """Cut the sequences of at most `most` users before the last item that was new to them, and
        return these items as held out.
        """
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
        """Each user's events in an order drawn by `rng`; for data without order, in which a user
        has each item once.
        """
        rows, size = np.arange(len(self.item)), len(self.item)
        owner = np.searchsorted(self.start, rows, side="right") - 1
        kept = rows < self.end[owner]
        order = np.lexsort((np.where(kept, rng.random(size), 1.0), owner))
        new = np.zeros(size + 1, np.bool_)
        new[self.upcoming] = True
        moved = {
            name: getattr(self, name)[order] for name in ("item", "event_type", "role", "time")
        }
        return replace(self, upcoming=_upcoming(new[:-1][order]), **moved)

    def windows(self, length: int, rng: np.random.Generator) -> Windows:
        """Cut every user's events into windows of at most `length`; `rng` draws where the first one
        ends.
        """
        inputs = np.maximum(self.end - self.start - 1, 0)  # nothing follows the last event
        first = np.where(inputs > length, rng.integers(1, length + 1, len(inputs)), inputs)
        counts = np.where(self.end > self.start, 1 + -(-(inputs - first) // length), 0)
        users = np.repeat(np.arange(len(counts)), counts)
        nth = np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts)
        start = self.start[users] + np.where(nth > 0, first[users] + (nth - 1) * length, 0)
        end = np.minimum(
            self.start[users] + first[users] + nth * length, self.start[users] + inputs[users]
        )
        return Windows(users, start, end)

    def latest(self, users: Integers, length: int) -> Windows:
        """The latest `length` events of each of `users`."""
        return Windows(
            users, np.maximum(self.start[users], self.end[users] - length), self.end[users]
        )

    def batch(self, windows: Windows) -> Batch:
        """The windows as padded arrays."""
        sizes = windows.end - windows.start
        size = int(sizes.max(initial=0))
        places = np.arange(size)
        real = places < sizes[:, None]
        rows = np.where(real, windows.start[:, None] + places, 0)
        following = self.upcoming[
            np.column_stack([windows.start, np.where(real, rows + 1, len(self.item))])
        ]
        answers = np.where(
            following < self.end[windows.users][:, None], np.append(self.item, 0)[following], NOBODY
        )
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
    """`users (n,)`: rows; `items (n,)`: the held-out item of each."""

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

    def __getitem__(self, rows: Any) -> Windows:
        return Windows(self.users[rows], self.start[rows], self.end[rows])

    def batches(self, tokens: int, rng: np.random.Generator) -> Iterator[Windows]:
        """Batches of windows of similar length, about `tokens` events each with padding, in an
        order drawn by `rng`.
        """
        sizes = self.end - self.start + 1
        order = np.argsort(sizes + rng.random(len(sizes)), kind="stable")[::-1]
        cuts = [0]
        while cuts[-1] < len(order):
            cuts.append(min(cuts[-1] + max(1, tokens // int(sizes[order[cuts[-1]]])), len(order)))
        for batch in rng.permutation(len(cuts) - 1).tolist():
            yield self[order[cuts[batch] : cuts[batch + 1]]]


@dataclass(frozen=True)
class Batch:
    """`items`, `event_types (b, s)` and `ages (b, s, s)` of events, padded at the end; `answers (b,
    s + 1)` the next new item after the profile alone and after each event, NOBODY where there is
    none; `sizes (b,)` events of each window; `roles (b,)`; `older (n,)` the items before each
    window, those of window i from older_from[i] on.
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
    """Simulated profiles (b, n_features) f32: declared interests drawn from the labels of the items
    in each window.
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
