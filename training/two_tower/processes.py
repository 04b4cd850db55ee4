"""The processes that fit Two-Tower together: by default this one alone.

training/two_tower/torchrun.py has those that torchrun starts. Every process reads the same data and
draws the same batches; it computes its part of the windows of each batch, and the gradients are
averaged, so that all processes hold the same parameters after each step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt


class Processes:
    """The process of a fit that runs in one process.

    `number`: of this process, from 0; process 0 alone writes and shows progress. `count`: of all
    processes; `count_here`: of those on this machine, which share its cores.
    """

    number = 0
    count = 1
    count_here = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and shows progress."""
        return self.number == 0

    def part(self, rows: int) -> slice:
        """Those of `rows` rows that this process computes; every row belongs to one process."""
        return slice(rows * self.number // self.count, rows * (self.number + 1) // self.count)

    def averaging(self, loss: Any) -> Any:
        """The module `loss`, whose backward pass averages the gradients over all processes."""
        return loss

    def mean(self, value: float) -> float:
        """The mean of `value` over all processes."""
        return value

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true in any process."""
        return flag

    def joined(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The `values (part,)` of all processes, for the rows of their `part`, in one array."""
        return values

    def from_first(self, arrays: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """The arrays by name that process 0 passes; None where it passes None."""
        return arrays

    def check_alike(self, facts: str) -> None:
        """Raise ConfigurationError unless `facts` are the same in every process."""


ONE_PROCESS = Processes()
