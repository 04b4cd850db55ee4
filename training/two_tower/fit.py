"""Trains Two-Tower with torch: epochs with early stopping on each user's last item, and the export
to arrays.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from core.errors import DatasetError
from core.settings import Settings
from core.types import Item
from core.use_cases import UseCases
from models.id_map import IdMap
from models.two_tower import TwoTowerFacts, TwoTowerModel
from training.data.dataset import Bools, Dataset
from training.two_tower import checkpoint
from training.two_tower.network import Towers
from training.two_tower.samples import (
    NOBODY,
    PROFILE_SHARE,
    Batch,
    Content,
    HeldOut,
    Sequences,
    declared,
)
from training.two_tower.softmax import SoftmaxLoss, candidates

BATCH_TOKENS = 4096
"""Most events in one batch, padding included: large enough that a step is matrix products, small
enough for many steps an epoch.
"""
LEAST_TOKENS, LEAST_STEPS = 128, 50
"""With little data batches get smaller, down to LEAST_TOKENS events, so that an epoch still has
about LEAST_STEPS steps.
"""
JUDGED_USERS = 5000
"""Users whose last item is held out for early stopping: NDCG@10 then has a standard error of about
0.002.
"""
JUDGED_AT_ONCE, JUDGED_SCORES = 512, 20_000_000
"""Most users scored in one block, and most scores of a block: 80 MB."""
REFRESH_EPOCHS, REFRESH_STEP = 2, 0.3
"""Epochs of a refresh over all events, and the factor of their learning rate."""
LAST_STEP = 0.05
"""Share of the learning rate that remains after TWO_TOWER_EPOCHS; it falls linearly."""
BETAS = (0.9, 0.98)
"""Of Adam; 0.98 as SASRec trains."""


class Hyperparameters(msgspec.Struct, frozen=True, kw_only=True):
    """Hyperparameters of a fit; the settings TWO_TOWER_... describe each."""

    dimension: int = 64
    layers: int = 2
    heads: int = 2
    history: int = 50
    dropout: float = 0.2
    id_dropout: float = 0.1
    learning_rate: float = 0.002
    epochs: int = 15
    patience: int = 4
    candidates: int = 2048


def hyperparameters(settings: Settings) -> Hyperparameters:
    """The hyperparameters of the settings."""
    return Hyperparameters(
        **{
            name: getattr(settings, f"two_tower_{name}")
            for name in Hyperparameters.__struct_fields__
        }
    )


@dataclass(frozen=True)
class Progress:
    """The state after an epoch.

    `epoch`: from 1. `loss`: mean; NaN without a batch. `ndcg`: NDCG@10 of the held-out items, None
    without any; `best`: so far. `seconds`: since the fit began.
    """

    epoch: int
    loss: float
    ndcg: float | None
    best: float | None
    seconds: float


@dataclass(frozen=True)
class Fitted:
    """The result of a fit.

    `model` serves. `arrays`: of `Towers.export`; another fit may start from them. `facts`:
    hyperparameters, best epoch and its NDCG@10, for the manifest. `curve`: `epoch` from 1, `loss`
    and `ndcg@10` of each epoch, for reports.
    """

    model: TwoTowerModel
    arrays: Mapping[str, Any]
    facts: Mapping[str, Any]
    curve: Sequence[Mapping[str, float | None]] = ()


def fit(
    dataset: Dataset,
    entries: Sequence[Item],
    use_cases: UseCases,
    hyperparameters: Hyperparameters,
    seed: int,
    *,
    where: Bools | None = None,
    seconds: float = float("inf"),
    threads: int = 0,
    judged_users: int = JUDGED_USERS,
    start: Fitted | None = None,
    folder: Path | None = None,
    ordered: bool = True,
    on_epoch: Callable[[Progress], None] | None = None,
    on_batch: Callable[[float], None] | None = None,
) -> Fitted:
    """Train on the events in `where` (n,) bool (default: all), and return the epoch that ranked the
    held-out items best.

    `entries`: the catalogue. `seconds`: no batch starts later. `threads` 0: one a core.
    `judged_users`: at most so many users' last items are held out for early stopping; with 0 the
    last epoch is returned. `start`: a fit of the same hyperparameters and catalogue whose arrays
    the fit starts from. `folder`: for checkpoints, one an epoch; a killed fit that is started again
    with the same data and hyperparameters resumes there, with the same result. `ordered` False: the
    order of a user's events has no meaning, so each epoch shuffles them; a user has each item once.
    `on_epoch`, and `on_batch` with the number of epochs done, may raise to stop the fit. Raises
    DatasetError when no event has a weight above 0; the caller reports it.
    """
    sequences = Sequences.of(dataset, where, use_cases)
    content = Content.of(sequences.items, entries, seed)
    fitting = _Fit(
        sequences,
        content,
        dataset.event_types,
        hyperparameters,
        seed,
        dataset.sha256,
        judged_users,
        folder,
        ordered,
    )
    return fitting.run(seconds, threads, start, on_epoch, on_batch)


def refresh(
    fitted: Fitted,
    dataset: Dataset,
    entries: Sequence[Item],
    use_cases: UseCases,
    hyperparameters: Hyperparameters,
    seed: int,
    *,
    threads: int = 0,
    on_epoch: Callable[[Progress], None] | None = None,
    on_batch: Callable[[float], None] | None = None,
) -> Fitted:
    """`fitted` after REFRESH_EPOCHS more epochs over all events of `dataset`, at a lower learning
    rate and without held-out items.
    """
    short = msgspec.structs.replace(
        hyperparameters,
        epochs=REFRESH_EPOCHS,
        learning_rate=hyperparameters.learning_rate * REFRESH_STEP,
    )
    return fit(
        dataset,
        entries,
        use_cases,
        short,
        seed,
        threads=threads,
        judged_users=0,
        start=fitted,
        on_epoch=on_epoch,
        on_batch=on_batch,
    )


class _Fit:
    """One fit: its data, hyperparameters and training loop."""

    def __init__(
        self,
        sequences: Sequences,
        content: Content,
        event_types: list[str],
        hyperparameters: Hyperparameters,
        seed: int,
        source: str,
        judged_users: int,
        folder: Path | None,
        ordered: bool,
    ) -> None:
        if not (sequences.upcoming[:-1] < len(sequences.item)).any():
            raise DatasetError(
                "no event has a weight above 0, so there is nothing to learn; check the "
                "event weights in USE_CASES_PATH"
            )
        self.hyperparameters, self.seed, self.folder, self.content, self.ordered = (
            hyperparameters,
            seed,
            folder,
            content,
            ordered,
        )
        self.facts = TwoTowerFacts(
            dimension=hyperparameters.dimension,
            layers=hyperparameters.layers,
            heads=hyperparameters.heads,
            history=hyperparameters.history,
            items=len(sequences.items),
            event_types=event_types,
            roles=sequences.roles,
        )
        self.sequences, self.held_out = sequences.without_last(
            np.random.default_rng(seed), judged_users
        )
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.share = np.bincount(sequences.item, minlength=len(sequences.items)) / len(
            sequences.item
        )
        described = hashlib.sha256(content.features.tobytes()).hexdigest()
        about = (
            source,
            msgspec.to_builtins(hyperparameters),
            seed,
            int(sequences.end.sum()),
            len(sequences.item),
            described,
            ordered,
        )
        self.identity = hashlib.sha256(repr(about).encode()).hexdigest()

    def run(
        self,
        seconds: float,
        threads: int,
        start: Fitted | None,
        on_epoch: Callable[[Progress], None] | None,
        on_batch: Callable[[float], None] | None,
    ) -> Fitted:
        """Train until the epochs, the patience or the time is used up."""
        started = time.monotonic()
        with _threads(threads):
            torch.manual_seed(self.seed)
            towers = Towers(self.facts, self.content.features, self.hyperparameters.dropout).to(
                self.device
            )
            if start is not None:
                _copy_parameters(towers, start, self.sequences.items)
            optimizer = torch.optim.Adam(
                towers.parameters(), self.hyperparameters.learning_rate, betas=BETAS
            )
            state = (
                checkpoint.load(self.folder, self.identity, towers, optimizer)
                if self.folder is not None
                else checkpoint.State()
            )
            best = state.best or towers.export()
            while (
                state.epoch < self.hyperparameters.epochs
                and state.epoch - state.best_epoch < self.hyperparameters.patience
            ):
                loss, whole = self._epoch(
                    towers, optimizer, state.epoch, started + seconds, on_batch
                )
                state.epoch += 1
                ndcg = self._judge(towers)
                if math.isfinite(loss):  # neither an epoch without a batch nor one that diverged
                    state.curve.append(
                        {
                            "epoch": state.epoch,
                            "loss": round(loss, 6),
                            "ndcg@10": None if ndcg is None else round(ndcg, 6),
                        }
                    )
                if ndcg is None or state.best_ndcg is None or ndcg > state.best_ndcg:
                    state.best, state.best_ndcg, state.best_epoch = (
                        towers.export(),
                        ndcg,
                        state.epoch,
                    )
                    best = state.best
                if self.folder is not None and whole:
                    checkpoint.save(self.folder, self.identity, state, towers, optimizer)
                if on_epoch is not None:
                    on_epoch(
                        Progress(
                            state.epoch, loss, ndcg, state.best_ndcg, time.monotonic() - started
                        )
                    )
                if not whole:
                    break
        facts = {
            **msgspec.to_builtins(self.hyperparameters),
            "best_epoch": state.best_epoch,
            "validation_ndcg@10": state.best_ndcg,
        }
        return Fitted(self.export(best), best, facts, state.curve)

    def _epoch(
        self,
        towers: Towers,
        optimizer: torch.optim.Optimizer,
        epoch: int,
        deadline: float,
        on_batch: Callable[[float], None] | None,
    ) -> tuple[float, bool]:
        """Mean loss, and whether there was time for every batch."""
        for group in optimizer.param_groups:
            group["lr"] = self.hyperparameters.learning_rate * (
                1.0 - (1.0 - LAST_STEP) * epoch / self.hyperparameters.epochs
            )
        rng = np.random.default_rng((self.seed, epoch))
        torch.manual_seed(self.seed + epoch)
        towers.train()
        total, count = 0.0, 0
        tokens = min(
            max(
                int((self.sequences.end - self.sequences.start).sum()) // LEAST_STEPS, LEAST_TOKENS
            ),
            BATCH_TOKENS,
        )
        sequences = self.sequences if self.ordered else self.sequences.shuffled(rng)
        epoch_windows = sequences.windows(self.hyperparameters.history, rng)
        windows_done = 0
        for windows in epoch_windows.batches(tokens, rng):
            if on_batch is not None:
                on_batch(epoch + windows_done / len(epoch_windows))
            windows_done += len(windows)
            if time.monotonic() >= deadline:
                return total / count if count else math.nan, False
            batch = sequences.batch(windows)
            if not (batch.answers >= 0).any():
                continue
            loss = self._loss(towers, batch, rng)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            answers = int((batch.answers >= 0).sum())
            total, count = total + float(loss.detach()) * answers, count + answers
        return total / max(count, 1), True

    def _loss(self, towers: Towers, batch: Batch, rng: np.random.Generator) -> Tensor:
        answered = batch.answers >= 0
        ranked, chance = candidates(batch, self.share, self.hyperparameters.candidates, rng)
        # older items are read, not ranked
        read = np.append(ranked, np.setdiff1d(batch.older, ranked))
        places = np.zeros(self.facts.items, np.int64)
        places[read] = np.arange(len(read))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            vectors = towers.item_vectors(self._tensor(read), self.hyperparameters.id_dropout)
            users = self._users(
                towers, batch, vectors, places, declared(batch, self.content, rng), rng
            )
        answers = self._tensor(places[batch.answers[answered]])
        loss: Tensor = SoftmaxLoss.apply(  # type: ignore[no-untyped-call]
            users[self._tensor(answered)].float(),
            vectors[: len(ranked)].float(),
            self._tensor(chance),
            answers,
        )
        return loss

    def _users(
        self,
        towers: Towers,
        batch: Batch,
        vectors: Tensor,
        places: Any,
        profiles: Any,
        rng: np.random.Generator | None,
    ) -> Tensor:
        """User vectors.

        `vectors (n, d)`: of some items; `places (n_items,)`: the row in `vectors` of each item.
        """
        roles = np.zeros((len(batch.roles), len(self.facts.roles)), np.float32)
        with_role = np.flatnonzero(
            (batch.roles != NOBODY)
            & (rng.random(len(roles)) < PROFILE_SHARE if rng is not None else False)
        )
        roles[with_role, batch.roles[with_role]] = 1.0
        older = functional.embedding_bag(
            self._tensor(places[batch.older]), vectors, self._tensor(batch.older_from), mode="mean"
        )
        users: Tensor = towers.users(
            functional.embedding(self._tensor(places[batch.items]), vectors),
            self._tensor(batch.event_types),
            self._tensor(batch.ages),
            self._tensor(profiles),
            self._tensor(roles),
            older,
        )
        return users

    @torch.no_grad()
    def _judge(self, towers: Towers) -> float | None:
        """NDCG@10 of each held-out item among the whole catalogue minus what its user has."""
        held_out = self.held_out
        if not len(held_out.users):
            return None
        towers.eval()
        vectors = towers.item_vectors(torch.arange(self.facts.items, device=self.device))
        gains = []
        at_once = min(JUDGED_AT_ONCE, max(1, JUDGED_SCORES // self.facts.items))
        for start in range(0, len(held_out.users), at_once):
            block = HeldOut(
                held_out.users[start : start + at_once], held_out.items[start : start + at_once]
            )
            batch = self.sequences.batch(
                self.sequences.latest(block.users, self.hyperparameters.history)
            )
            nobody = np.zeros((len(block.users), self.content.features.shape[1]), np.float32)
            users = self._users(towers, batch, vectors, np.arange(self.facts.items), nobody, None)
            scores = (
                (users[torch.arange(len(users)), self._tensor(batch.sizes)] @ vectors.T)
                .float()
                .cpu()
                .numpy()
            )
            for row, user, item in zip(
                scores, block.users.tolist(), block.items.tolist(), strict=True
            ):
                own = row[item]
                row[
                    self.sequences.item[self.sequences.start[user] : self.sequences.end[user]]
                ] = -np.inf
                row[item] = -np.inf
                better = int((row >= own).sum())
                gains.append(1.0 / np.log2(better + 2.0) if better < 10 else 0.0)
        return float(np.mean(gains))

    def export(self, arrays: Mapping[str, Any]) -> TwoTowerModel:
        """The serving model of the arrays of `Towers.export`."""
        parameters = dict(arrays)
        ids, projection = parameters.pop("id_vectors"), parameters.pop("projection")
        parameters["term_vectors"] = np.ascontiguousarray(self.content.axes @ projection)
        item_vectors = np.ascontiguousarray(ids + self.content.features @ projection)
        return TwoTowerModel(
            self.facts, self.sequences.items, item_vectors, self.content.vocabulary, parameters
        )

    def _tensor(self, array: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


@torch.no_grad()
def _copy_parameters(towers: Towers, start: Fitted, items: IdMap) -> None:
    """Copy every parameter of `start` into `towers`; id vectors of items that it lacks stay as they
    are.
    """
    rows = start.model.item_ids.rows(items.ids)
    known = torch.from_numpy(rows >= 0)
    for name, parameter in towers.named_parameters():
        before = torch.from_numpy(start.arrays[name]).to(parameter.device)
        if name == "id_vectors":
            parameter[known] = before[torch.from_numpy(rows[rows >= 0].astype(np.int64))]
        else:
            parameter.copy_(before)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or os.cpu_count() or 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
