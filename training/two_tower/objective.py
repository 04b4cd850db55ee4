"""Computes the training loss of a batch, and NDCG@10 of held-out items."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.two_tower import TwoTowerFacts
from training.two_tower.content import PROFILE_SHARE, Content, simulated_profiles
from training.two_tower.hyperparameters import Hyperparameters
from training.two_tower.network import Towers
from training.two_tower.processes import Processes
from training.two_tower.samples import MISSING, Batch, Floats, HeldOut, Sequences
from training.two_tower.softmax import SoftmaxLoss, candidates

RANKED_USERS, RANKED_SCORES = 512, 20_000_000
"""Most users scored in one block, and most scores of a block: 80 MB."""
_CUTOFF = 10


class _ItemVectors(NamedTuple):
    """`vectors (n, d)` of some items; `rows (n_items,)`: the row in `vectors` of each item."""

    vectors: Tensor
    rows: Any


class Objective:
    """The loss that a fit minimizes and the metric that it stops by."""

    def __init__(
        self,
        facts: TwoTowerFacts,
        content: Content,
        share: Any,
        hyperparameters: Hyperparameters,
        device: torch.device,
        processes: Processes,
    ) -> None:
        """`share (n_items,)`: share of all events with each item."""
        self._facts, self._content, self._share = facts, content, share
        self._hyperparameters, self._device = hyperparameters, device
        self._processes = processes
        self._generator = torch.Generator(device) if processes.count > 1 else None

    def seed(self, seed: int) -> None:
        """Seed what torch draws in an epoch.

        Processes of one fit hide the ids of the same items, which all of them rank, and drop
        different activations, because each computes windows of its own.
        """
        torch.manual_seed(seed + self._processes.number * self._hyperparameters.epochs)
        if self._generator is not None:
            self._generator.manual_seed(seed)

    def loss(self, towers: Towers, batch: Batch, rng: np.random.Generator) -> Tensor:
        """The mean loss () of the answers in `batch`. `rng` draws candidates and profiles.

        With several processes, which get the same `batch` and the same `rng`, it is this process's
        part of it: the mean over the processes, also of the gradients, is that of one process that
        computes the whole batch. They all rank the same candidates, so no vectors are exchanged.
        """
        limit = self._hyperparameters.candidates
        ranked, log_chance = candidates(batch, self._share, limit, rng)
        # older items are read, not ranked
        used = np.append(ranked, np.setdiff1d(batch.older, ranked))
        rows = np.zeros(self._facts.items, np.int64)
        rows[used] = np.arange(len(used))
        on_gpu = self._device.type == "cuda"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=on_gpu):
            vectors = towers.item_vectors(
                self._tensor(used), self._hyperparameters.id_dropout, self._generator
            )
            profiles = simulated_profiles(batch, self._content, rng)
            roles = self._roles(batch, rng)
            mine, answers = self._part(batch)
            part = batch.part(mine)
            items = _ItemVectors(vectors, rows)
            users = self._users(towers, part, items, profiles[mine], roles[mine])
        answered = part.answers >= 0
        loss: Tensor = SoftmaxLoss.apply(  # type: ignore[no-untyped-call]
            users[self._tensor(answered)].float(),
            vectors[: len(ranked)].float(),
            self._tensor(log_chance),
            self._tensor(rows[part.answers[answered]]),
            answers,
        )
        return loss

    def _part(self, batch: Batch) -> tuple[slice, float]:
        """The windows of `batch` that this process computes, and what it divides their loss by."""
        answers, windows = int((batch.answers >= 0).sum()), len(batch.sizes)
        if windows < self._processes.count:
            return slice(0, windows), answers  # every process computes every window
        return self._processes.part(windows), answers / self._processes.count

    @torch.no_grad()
    def ndcg(
        self, towers: Towers, sequences: Sequences, held_out: HeldOut
    ) -> npt.NDArray[np.float64] | None:
        """(n,) NDCG@10 of each held-out item among the whole catalogue minus what its user has.

        None without held-out items. Each process ranks its part of them.
        """
        if not len(held_out.users):
            return None
        part = self._processes.part(len(held_out.users))
        gains = self._gains(towers, sequences, HeldOut(held_out.users[part], held_out.items[part]))
        return self._processes.joined(gains)

    def _gains(
        self, towers: Towers, sequences: Sequences, held_out: HeldOut
    ) -> npt.NDArray[np.float64]:
        towers.eval()
        n_items = self._facts.items
        vectors = towers.item_vectors(torch.arange(n_items, device=self._device))
        items = _ItemVectors(vectors, np.arange(n_items))
        gains: list[float] = []
        size = min(RANKED_USERS, max(1, RANKED_SCORES // n_items))
        for start in range(0, len(held_out.users), size):
            users = held_out.users[start : start + size]
            batch = sequences.batch(sequences.latest(users, self._hyperparameters.history))
            no_profiles = np.zeros((len(users), self._content.features.shape[1]), np.float32)
            user_vectors = self._users(towers, batch, items, no_profiles, self._roles(batch))
            last = user_vectors[torch.arange(len(users)), self._tensor(batch.sizes)]
            scores = (last @ vectors.T).float().cpu().numpy()
            targets = held_out.items[start : start + size].tolist()
            for row, user, item in zip(scores, users.tolist(), targets, strict=True):
                own = row[item]
                row[sequences.item[sequences.start[user] : sequences.end[user]]] = -np.inf
                row[item] = -np.inf
                better = int((row >= own).sum())
                gains.append(1.0 / np.log2(better + 2.0) if better < _CUTOFF else 0.0)
        return np.array(gains, np.float64)

    def _roles(self, batch: Batch, rng: np.random.Generator | None = None) -> Floats:
        """(b, n_roles) f32: 1 for the role of a window, which `rng` draws; without it, 0."""
        roles = np.zeros((len(batch.roles), len(self._facts.roles)), np.float32)
        if rng is not None:
            drawn = rng.random(len(roles)) < PROFILE_SHARE
            with_role = np.flatnonzero((batch.roles != MISSING) & drawn)
            roles[with_role, batch.roles[with_role]] = 1.0
        return roles

    def _users(
        self, towers: Towers, batch: Batch, items: _ItemVectors, profiles: Floats, roles: Floats
    ) -> Tensor:
        """User vectors (b, s + 1, d): after the profile alone and after each event."""
        vectors, rows = items
        older_from = self._tensor(batch.older_from)
        older = functional.embedding_bag(
            self._tensor(rows[batch.older]), vectors, older_from, mode="mean"
        )
        users: Tensor = towers.users(
            functional.embedding(self._tensor(rows[batch.items]), vectors),
            self._tensor(batch.event_types),
            self._tensor(batch.ages),
            self._tensor(profiles),
            self._tensor(roles),
            older,
        )
        return users

    def _tensor(self, array: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)


class BatchLoss(nn.Module):
    """The loss of a batch as a module, as torch's DistributedDataParallel needs it."""

    def __init__(self, towers: Towers, objective: Objective) -> None:
        super().__init__()
        self.towers, self._objective = towers, objective

    def forward(self, batch: Batch, rng: np.random.Generator) -> Tensor:
        """`Objective.loss` of the towers."""
        return self._objective.loss(self.towers, batch, rng)
