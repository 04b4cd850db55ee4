"""Two-Tower by torch: what a fit is told, epochs with early stopping on each user's last item, and the export to arrays."""

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
from training.two_tower.samples import NOBODY, PROFILE_SHARE, Batch, Content, HeldOut, Sequences, declared
from training.two_tower.softmax import SoftmaxLoss, candidates

BATCH_TOKENS = 4096
"""Most events in one batch, padding included: large enough that a step is matrix products, small enough for many steps an epoch."""
LEAST_TOKENS, LEAST_STEPS = 128, 50
"""Little data makes smaller batches, down to LEAST_TOKENS events, so that an epoch still has about LEAST_STEPS steps."""
JUDGED_USERS = 5000
"""Users whose last item says when to stop: NDCG@10 then has a standard error of about 0.002."""
JUDGED_AT_ONCE, JUDGED_SCORES = 512, 20_000_000
"""Most users whose scores are held at once, and most scores: 80 MB."""
REFRESH_EPOCHS, REFRESH_STEP = 2, 0.3
"""Epochs that bring a model of the training part up to date with every event, and their share of the learning rate."""
LAST_STEP = 0.05
"""Share of the learning rate that is left when TWO_TOWER_EPOCHS are over; it falls in a straight line."""
BETAS = (0.9, 0.98)
"""Of Adam; 0.98 as SASRec trains."""


class Hyperparameters(msgspec.Struct, frozen=True, kw_only=True):
    """What a fit is told; the settings TWO_TOWER_... say what each means."""

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
    """Those of the settings."""
    return Hyperparameters(**{name: getattr(settings, f"two_tower_{name}") for name in Hyperparameters.__struct_fields__})


@dataclass(frozen=True)
class Progress:
    """After an epoch: its number from 1, mean loss (NaN: there was time for no batch), NDCG@10 of the held-out items (None: nobody was
    held out) and the best so far."""

    epoch: int
    loss: float
    ndcg: float | None
    best: float | None
    seconds: float


@dataclass(frozen=True)
class Fitted:
    """A model that serves, the arrays of `Towers.export` that another fit may start from, and what the fit was told and came to.

    `curve`: of each epoch its number from 1, `loss` and `ndcg@10`, for reports.
    """

    model: TwoTowerModel
    arrays: Mapping[str, Any]
    told: Mapping[str, Any]
    curve: Sequence[Mapping[str, float | None]] = ()


def fit(
    dataset: Dataset,
    entries: Sequence[Item],
    use_cases: UseCases,
    chosen: Hyperparameters,
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
    """Train on the events in `where` (all), and return the epoch that ranked the held-out items best.

    `entries`: the catalogue. `seconds`: no batch starts later. `threads` 0: one a core. `judged_users`: most users whose last item is
    held out to tell when to stop; with 0 the last epoch is returned. `start`: a fit of the same hyperparameters and catalogue whose
    arrays are taken over. `folder`: checkpoints, one an epoch; a killed fit that is started again with the same data and
    hyperparameters goes on from there, and ends where it would have. `ordered` False: the order of a user's events says nothing, so each
    epoch reads them in another; users take an item once. `on_epoch` and `on_batch`, which is told the epochs done, may
    raise to stop the fit. Raises DatasetError when there is nothing to learn.
    """
    sequences = Sequences.of(dataset, where, use_cases)
    content = Content.of(sequences.items, entries, seed)
    fitting = _Fit(sequences, content, dataset.event_types, chosen, seed, dataset.sha256, judged_users, folder, ordered)
    return fitting.run(seconds, threads, start, on_epoch, on_batch)


def refresh(
    fitted: Fitted,
    dataset: Dataset,
    entries: Sequence[Item],
    use_cases: UseCases,
    chosen: Hyperparameters,
    seed: int,
    *,
    threads: int = 0,
    on_epoch: Callable[[Progress], None] | None = None,
    on_batch: Callable[[float], None] | None = None,
) -> Fitted:
    """`fitted`, brought up to date with every event of `dataset` by REFRESH_EPOCHS short-stepped epochs; nobody is held out."""
    short = msgspec.structs.replace(chosen, epochs=REFRESH_EPOCHS, learning_rate=chosen.learning_rate * REFRESH_STEP)
    return fit(
        dataset, entries, use_cases, short, seed, threads=threads, judged_users=0, start=fitted, on_epoch=on_epoch, on_batch=on_batch
    )


class _Fit:
    def __init__(
        self,
        sequences: Sequences,
        content: Content,
        event_types: list[str],
        chosen: Hyperparameters,
        seed: int,
        source: str,
        judged_users: int,
        folder: Path | None,
        ordered: bool,
    ) -> None:
        if not (sequences.upcoming[:-1] < len(sequences.item)).any():
            raise DatasetError("no event has a weight above 0, so there is nothing to learn; check the event weights in USE_CASES_PATH")
        self.chosen, self.seed, self.folder, self.content, self.ordered = chosen, seed, folder, content, ordered
        self.facts = TwoTowerFacts(
            dimension=chosen.dimension,
            layers=chosen.layers,
            heads=chosen.heads,
            history=chosen.history,
            items=len(sequences.items),
            event_types=event_types,
            roles=sequences.roles,
        )
        self.sequences, self.held_out = sequences.without_last(np.random.default_rng(seed), judged_users)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.share = np.bincount(sequences.item, minlength=len(sequences.items)) / len(sequences.item)
        described = hashlib.sha256(content.features.tobytes()).hexdigest()
        about = (source, msgspec.to_builtins(chosen), seed, int(sequences.end.sum()), len(sequences.item), described, ordered)
        self.identity = hashlib.sha256(repr(about).encode()).hexdigest()

    def run(
        self,
        seconds: float,
        threads: int,
        start: Fitted | None,
        on_epoch: Callable[[Progress], None] | None,
        on_batch: Callable[[float], None] | None,
    ) -> Fitted:
        """Epoch after epoch, until one of the limits."""
        began = time.monotonic()
        with _threads(threads):
            torch.manual_seed(self.seed)
            towers = Towers(self.facts, self.content.features, self.chosen.dropout).to(self.device)
            if start is not None:
                _take_over(towers, start, self.sequences.items)
            optimizer = torch.optim.Adam(towers.parameters(), self.chosen.learning_rate, betas=BETAS)
            state = checkpoint.load(self.folder, self.identity, towers, optimizer) if self.folder is not None else checkpoint.State()
            best = state.best or towers.export()
            while state.epoch < self.chosen.epochs and state.epoch - state.best_epoch < self.chosen.patience:
                loss, whole = self._epoch(towers, optimizer, state.epoch, began + seconds, on_batch)
                state.epoch += 1
                ndcg = self._judge(towers)
                if math.isfinite(loss):  # not of an epoch without a batch, nor of one that ran away
                    state.curve.append({"epoch": state.epoch, "loss": round(loss, 6), "ndcg@10": None if ndcg is None else round(ndcg, 6)})
                if ndcg is None or state.best_ndcg is None or ndcg > state.best_ndcg:
                    state.best, state.best_ndcg, state.best_epoch = towers.export(), ndcg, state.epoch
                    best = state.best
                if self.folder is not None and whole:
                    checkpoint.save(self.folder, self.identity, state, towers, optimizer)
                if on_epoch is not None:
                    on_epoch(Progress(state.epoch, loss, ndcg, state.best_ndcg, time.monotonic() - began))
                if not whole:
                    break
        told = {**msgspec.to_builtins(self.chosen), "best_epoch": state.best_epoch, "validation_ndcg@10": state.best_ndcg}
        return Fitted(self.exported(best), best, told, state.curve)

    def _epoch(
        self, towers: Towers, optimizer: torch.optim.Optimizer, epoch: int, deadline: float, on_batch: Callable[[float], None] | None
    ) -> tuple[float, bool]:
        """Mean loss, and whether there was time for every batch."""
        for group in optimizer.param_groups:
            group["lr"] = self.chosen.learning_rate * (1.0 - (1.0 - LAST_STEP) * epoch / self.chosen.epochs)
        rng = np.random.default_rng((self.seed, epoch))
        torch.manual_seed(self.seed + epoch)
        towers.train()
        total, count = 0.0, 0
        tokens = min(max(int((self.sequences.end - self.sequences.start).sum()) // LEAST_STEPS, LEAST_TOKENS), BATCH_TOKENS)
        sequences = self.sequences if self.ordered else self.sequences.shuffled(rng)
        every = sequences.windows(self.chosen.history, rng)
        seen = 0
        for windows in every.batches(tokens, rng):
            if on_batch is not None:
                on_batch(epoch + seen / len(every))
            seen += len(windows)
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
        asked = batch.answers >= 0
        ranked, chance = candidates(batch, self.share, self.chosen.candidates, rng)
        read = np.append(ranked, np.setdiff1d(batch.older, ranked))  # older items are read, not ranked
        places = np.zeros(self.facts.items, np.int64)
        places[read] = np.arange(len(read))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            vectors = towers.item_vectors(self._tensor(read), self.chosen.id_dropout)
            users = self._users(towers, batch, vectors, places, declared(batch, self.content, rng), rng)
        answers = self._tensor(places[batch.answers[asked]])
        loss: Tensor = SoftmaxLoss.apply(  # type: ignore[no-untyped-call]
            users[self._tensor(asked)].float(), vectors[: len(ranked)].float(), self._tensor(chance), answers
        )
        return loss

    def _users(self, towers: Towers, batch: Batch, vectors: Tensor, places: Any, profiles: Any, rng: np.random.Generator | None) -> Tensor:
        """`vectors` of some items; `places (n_items,)`: where among them each item lies."""
        roles = np.zeros((len(batch.roles), len(self.facts.roles)), np.float32)
        told = np.flatnonzero((batch.roles != NOBODY) & (rng.random(len(roles)) < PROFILE_SHARE if rng is not None else False))
        roles[told, batch.roles[told]] = 1.0
        older = functional.embedding_bag(self._tensor(places[batch.older]), vectors, self._tensor(batch.older_from), mode="mean")
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
            some = HeldOut(held_out.users[start : start + at_once], held_out.items[start : start + at_once])
            batch = self.sequences.batch(self.sequences.latest(some.users, self.chosen.history))
            nobody = np.zeros((len(some.users), self.content.features.shape[1]), np.float32)
            users = self._users(towers, batch, vectors, np.arange(self.facts.items), nobody, None)
            scores = (users[torch.arange(len(users)), self._tensor(batch.sizes)] @ vectors.T).float().cpu().numpy()
            for line, user, item in zip(scores, some.users.tolist(), some.items.tolist(), strict=True):
                own = line[item]
                line[self.sequences.item[self.sequences.start[user] : self.sequences.end[user]]] = -np.inf
                line[item] = -np.inf
                better = int((line >= own).sum())
                gains.append(1.0 / np.log2(better + 2.0) if better < 10 else 0.0)
        return float(np.mean(gains))

    def exported(self, arrays: Mapping[str, Any]) -> TwoTowerModel:
        """What serves, of what `Towers.export` gave."""
        kept = dict(arrays)
        ids, projection = kept.pop("id_vectors"), kept.pop("projection")
        kept["term_vectors"] = np.ascontiguousarray(self.content.axes @ projection)
        item_vectors = np.ascontiguousarray(ids + self.content.features @ projection)
        return TwoTowerModel(self.facts, self.sequences.items, item_vectors, self.content.vocabulary, kept)

    def _tensor(self, array: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


@torch.no_grad()
def _take_over(towers: Towers, start: Fitted, items: IdMap) -> None:
    """Every parameter of `start`; the ids of items that it did not know keep what they have."""
    rows = start.model.item_ids.rows(items.ids)
    known = torch.from_numpy(rows >= 0)
    for name, parameter in towers.named_parameters():
        before = torch.from_numpy(start.arrays[name]).to(parameter.device)
        if name == "id_vectors":
            parameter[known] = before[torch.from_numpy(rows[rows >= 0].astype(np.int64))]
        else:
            parameter.copy_(before)


@contextmanager
def _threads(wanted: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(wanted or os.cpu_count() or 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
