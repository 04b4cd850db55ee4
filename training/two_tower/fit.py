"""Trains Two-Tower with torch: epochs, early stopping, checkpoints, and the export to arrays."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import torch
from torch import nn

from core.errors import DatasetError
from models.id_map import IdMap
from models.two_tower import TwoTowerFacts, TwoTowerModel
from training.two_tower import checkpoint
from training.two_tower.content import Content
from training.two_tower.fit_types import DEFAULTS, FitOptions, Fitted, Progress, TrainingData
from training.two_tower.hyperparameters import Hyperparameters
from training.two_tower.network import Towers
from training.two_tower.objective import BatchLoss, Objective
from training.two_tower.samples import Sequences

BATCH_TOKENS = 4096
"""Most events in one batch, padding included: large enough that a step is matrix products, small
enough for many steps an epoch.
"""
LEAST_TOKENS, LEAST_STEPS = 128, 50
"""With little data batches get smaller, down to LEAST_TOKENS events, so that an epoch still has
about LEAST_STEPS steps.
"""
REFRESH_EPOCHS, REFRESH_STEP = 2, 0.3
"""Epochs of a refresh over all events, and the factor of their learning rate."""
LAST_STEP = 0.05
"""Share of the learning rate that remains after TWO_TOWER_EPOCHS; it falls linearly."""
BETAS = (0.9, 0.98)
"""Of Adam; 0.98 as SASRec trains."""


def fit(
    data: TrainingData,
    hyperparameters: Hyperparameters,
    seed: int,
    options: FitOptions = DEFAULTS,
    start: Fitted | None = None,
) -> Fitted:
    """Train on `data`, and return the epoch that ranked the held-out items best.

    `start`: a fit of the same hyperparameters and catalogue whose arrays the fit starts from.
    Raises DatasetError when no event has a weight above 0; the caller reports it.
    """
    return _Fit(data, hyperparameters, seed, options).run(start)


def refresh(
    fitted: Fitted,
    data: TrainingData,
    hyperparameters: Hyperparameters,
    seed: int,
    options: FitOptions = DEFAULTS,
) -> Fitted:
    """`fitted` after REFRESH_EPOCHS more epochs over `data`.

    The learning rate is lower, and no item is held out.
    """
    short = msgspec.structs.replace(
        hyperparameters,
        epochs=REFRESH_EPOCHS,
        learning_rate=hyperparameters.learning_rate * REFRESH_STEP,
    )
    return fit(data, short, seed, replace(options, held_out_users=0), start=fitted)


class _Fit:
    """One fit: its data, hyperparameters and training loop."""

    def __init__(
        self, data: TrainingData, hyperparameters: Hyperparameters, seed: int, options: FitOptions
    ) -> None:
        sequences = Sequences.of(data.dataset, data.where, data.use_cases)
        if not (sequences.upcoming[:-1] < len(sequences.item)).any():
            raise DatasetError(
                "no event has a weight above 0, so there is nothing to learn; check the "
                "event weights in USE_CASES_PATH"
            )
        self.hyperparameters, self.seed, self.options = hyperparameters, seed, options
        self.ordered, self.processes = data.ordered, options.processes
        self.content = Content.of(sequences.items, data.entries, seed)
        self.facts = TwoTowerFacts(
            dimension=hyperparameters.dimension,
            layers=hyperparameters.layers,
            heads=hyperparameters.heads,
            history=hyperparameters.history,
            items=len(sequences.items),
            event_types=data.dataset.event_types,
            roles=sequences.roles,
        )
        self.sequences, self.held_out = sequences.without_last(
            np.random.default_rng(seed), options.held_out_users
        )
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        counts = np.bincount(sequences.item, minlength=len(sequences.items))
        share = counts / len(sequences.item)
        self.objective = Objective(
            self.facts, self.content, share, hyperparameters, self.device, self.processes
        )
        about = (
            data.dataset.sha256,
            msgspec.to_builtins(hyperparameters),
            seed,
            int(sequences.end.sum()),
            len(sequences.item),
            data.ordered,
            self.content.features.shape,
        )
        self.processes.check_alike(repr(about))
        digest = hashlib.sha256(repr(about).encode())
        digest.update(self.content.features.tobytes())
        self.identity = digest.hexdigest()

    def run(self, start: Fitted | None) -> Fitted:
        """Train until the epochs, the patience or the time is used up."""
        started = time.monotonic()
        hyperparameters = self.hyperparameters
        folder = self.options.checkpoints if self.processes.first else None
        with _threads(self.options.threads, self.processes.count_here):
            torch.manual_seed(self.seed)
            towers = Towers(self.facts, self.content.features, hyperparameters.dropout)
            towers = towers.to(self.device)
            if start is not None:
                _copy_parameters(towers, start, self.sequences.items)
            optimizer = torch.optim.Adam(
                towers.parameters(), hyperparameters.learning_rate, betas=BETAS
            )
            stored = checkpoint.read(folder, self.identity) if folder is not None else None
            arrays, state = self.processes.from_first(stored), checkpoint.State()
            if arrays is not None:
                state = checkpoint.restore(arrays, towers, optimizer)
            batch_loss = self.processes.averaging(BatchLoss(towers, self.objective))
            best = state.best or towers.export()
            while (
                state.epoch < hyperparameters.epochs
                and state.epoch - state.best_epoch < hyperparameters.patience
            ):
                deadline = started + self.options.seconds
                loss, whole = self._epoch(batch_loss, optimizer, state.epoch, deadline)
                gains = self.objective.ndcg(towers, self.sequences, self.held_out)
                ndcg = None if gains is None else float(gains.mean())
                if state.add(loss, ndcg):
                    best = state.best = towers.export()
                if folder is not None and whole:
                    checkpoint.save(folder, self.identity, state, towers, optimizer)
                if self.options.on_epoch is not None:
                    seconds = time.monotonic() - started
                    self.options.on_epoch(
                        Progress(state.epoch, loss, ndcg, state.best_ndcg, seconds, gains)
                    )
                if not whole:
                    break
        facts = {
            **msgspec.to_builtins(hyperparameters),
            "best_epoch": state.best_epoch,
            "validation_ndcg@10": state.best_ndcg,
        }
        model = serving_model(self.facts, self.sequences.items, self.content, best)
        return Fitted(model, best, facts, state.curve)

    def _epoch(
        self, batch_loss: nn.Module, optimizer: torch.optim.Optimizer, epoch: int, deadline: float
    ) -> tuple[float, bool]:
        """Mean loss, and whether there was time for every batch."""
        hyperparameters = self.hyperparameters
        for group in optimizer.param_groups:
            group["lr"] = hyperparameters.learning_rate * (
                1.0 - (1.0 - LAST_STEP) * epoch / hyperparameters.epochs
            )
        rng = np.random.default_rng((self.seed, epoch))
        self.objective.seed(self.seed + epoch)
        batch_loss.train()
        total, count = 0.0, 0
        n_events = int((self.sequences.end - self.sequences.start).sum())
        tokens = min(max(n_events // LEAST_STEPS, LEAST_TOKENS), BATCH_TOKENS)
        sequences = self.sequences if self.ordered else self.sequences.shuffled(rng)
        epoch_windows = sequences.windows(hyperparameters.history, rng)
        windows_done = 0
        for windows in epoch_windows.batches(tokens, rng):
            if self.options.on_batch is not None:
                self.options.on_batch(epoch + windows_done / len(epoch_windows))
            windows_done += len(windows)
            if self.processes.any(time.monotonic() >= deadline):
                return self.processes.mean(total) / count if count else math.nan, False
            batch = sequences.batch(windows)
            if not (batch.answers >= 0).any():
                continue
            loss = batch_loss(batch, rng)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            answers = int((batch.answers >= 0).sum())
            total, count = total + float(loss.detach()) * answers, count + answers
        return self.processes.mean(total) / max(count, 1), True


def serving_model(
    facts: TwoTowerFacts, item_ids: IdMap, content: Content, arrays: Mapping[str, Any]
) -> TwoTowerModel:
    """The serving model of the `arrays` of `Towers.export`."""
    parameters = dict(arrays)
    ids, projection = parameters.pop("id_vectors"), parameters.pop("projection")
    parameters["term_vectors"] = np.ascontiguousarray(content.axes @ projection)
    item_vectors = np.ascontiguousarray(ids + content.features @ projection)
    return TwoTowerModel(facts, item_ids, item_vectors, content.vocabulary, parameters)


@torch.no_grad()
def _copy_parameters(towers: Towers, start: Fitted, items: IdMap) -> None:
    """Copy every parameter of `start` into `towers`.

    The id vectors of items that `start` lacks stay as they are.
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
def _threads(count: int, processes: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or max(1, (os.cpu_count() or 1) // processes))
    try:
        yield
    finally:
        torch.set_num_threads(before)
