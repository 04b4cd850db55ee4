"""Joins the processes that torchrun starts, on one machine or on several.

Gradients are averaged by torch's DistributedDataParallel: by NCCL where there are GPUs, one for
each process, and by Gloo on processors. torchrun starts all processes again when one ends
(`--max-restarts`); they continue after the last complete epoch.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed
from torch import Tensor
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from core.errors import ConfigurationError, ProcessFailed
from training.two_tower.processes import ONE_PROCESS, Processes


@contextmanager
def joined() -> Iterator[Processes]:
    """The processes that torchrun started; this one alone when it was started without torchrun.

    Raises ConfigurationError when there are fewer GPUs than processes, and ProcessFailed when
    another process ends before the fit does.
    """
    if not torch.distributed.is_torchelastic_launched():
        yield ONE_PROCESS
        return
    here, gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
    if 0 < gpus < here:
        raise ConfigurationError(
            f"torchrun started {here} processes on a machine with {gpus} GPU(s); pass "
            f"--nproc-per-node {gpus}, or hide the GPUs by CUDA_VISIBLE_DEVICES="
        )
    try:
        yield _Torchrun(here, _join(here, gpus > 0))
    except RuntimeError as error:
        if not _connection_lost(error):
            raise
        raise ProcessFailed(
            f"another process of this fit has ended ({str(error).partition('. ')[0]}); its own "
            f"lines say why. The same command continues after the last complete epoch, and "
            f"torchrun --max-restarts 3 repeats it by itself"
        ) from None
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _join(here: int, on_gpus: bool) -> torch.device:
    """Initialize the process group, and return the device of this process."""
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpus else torch.device("cpu")
    store, number, count = next(rendezvous("env://"))
    if count == here:
        # After a restart the store still has the addresses of the processes that ended (pytorch
        # issues 135712, 167288). Only on one machine do all processes count the same restarts;
        # docs/two-tower-guide.md has the variable to set on several.
        restarts = os.environ["TORCHELASTIC_RESTART_COUNT"]
        store = torch.distributed.PrefixStore(restarts, store)  # type: ignore[attr-defined]
    if on_gpus:
        torch.cuda.set_device(device)
    torch.distributed.init_process_group(
        "nccl" if on_gpus else "gloo",
        store=store,
        rank=number,
        world_size=count,
        device_id=device if on_gpus else None,
    )
    return device


def _connection_lost(error: RuntimeError) -> bool:
    """Whether a collective operation failed. Gloo raises a bare RuntimeError."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower()


class _Torchrun(Processes):
    """The processes of the initialized process group."""

    def __init__(self, count_here: int, device: torch.device) -> None:
        self.number, self.count = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self.count_here, self._device = count_here, device

    def averaging(self, loss: Any) -> Any:
        # parameters and buffers are those of process 0 from here on; no step changes a buffer
        return DistributedDataParallel(loss, forward_sync_buffers=False)

    def mean(self, value: float) -> float:
        return float(self._summed(torch.tensor([value], dtype=torch.float64))) / self.count

    def any(self, flag: bool) -> bool:
        return bool(self._summed(torch.tensor([int(flag)])))

    def joined(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        rows = int(self._summed(torch.tensor([len(values)])))
        every = torch.zeros(rows, dtype=torch.float64)
        every[self.part(rows)] = torch.from_numpy(values)
        array: npt.NDArray[np.float64] = self._summed(every).cpu().numpy()
        return array

    def from_first(self, arrays: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        content = io.BytesIO()
        if self.first and arrays is not None:
            np.savez(content, allow_pickle=False, **arrays)
        sent = np.frombuffer(content.getvalue(), np.uint8)
        size = torch.tensor([len(sent)], device=self._device)
        torch.distributed.broadcast(size, src=0)
        if not int(size):
            return None
        buffer = sent.copy() if self.first else np.empty(int(size), np.uint8)
        received = torch.from_numpy(buffer).to(self._device)
        torch.distributed.broadcast(received, src=0)
        with np.load(io.BytesIO(received.cpu().numpy().tobytes()), allow_pickle=False) as loaded:
            return {name: loaded[name] for name in loaded.files}

    def check_alike(self, facts: str) -> None:
        digest = np.frombuffer(hashlib.sha256(facts.encode()).digest(), np.uint8)
        first = torch.from_numpy(digest.copy()).to(self._device)
        torch.distributed.broadcast(first, src=0)
        if self.any(first.cpu().numpy().tobytes() != digest.tobytes()):
            raise ConfigurationError(
                "the processes that torchrun started differ in dataset, items, hyperparameters or "
                "settings; give every machine the same files and the same environment"
            )

    def _summed(self, values: Tensor) -> Tensor:
        values = values.to(self._device)
        torch.distributed.all_reduce(values)
        return values
