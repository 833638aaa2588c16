"""The loss terms of a training: fetched from the device while the next step computes, checked, and averaged into the curve."""

import csv
import io
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipeline.errors import UserError

ROWS = 100
"""Rows of a training curve, about."""


class LossError(UserError):
    """A loss is not finite; the message shows its terms."""


class _Fetched(NamedTuple):
    """Terms of a step on their way from the device, and what tells that they have arrived (None: they are here)."""

    step: int
    rate: float
    names: tuple[str, ...]
    values: Tensor
    arrival: Any


@dataclass(slots=True)
class Curve:
    """Means of the loss terms over equal stretches of `every` steps; `last` are those of the last step that has arrived."""

    stage: str
    every: int
    rows: list[dict[str, float]] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    count: int = 0
    last: Mapping[str, float] = field(default_factory=dict)
    _coming: deque[_Fetched] = field(default_factory=deque)

    def add(self, step: int, rate: float, names: tuple[str, ...], values: Tensor) -> None:
        """Send for the terms [T] of a step at learning rate `rate`, and take in those of the step before.

        To ask for this step's would let a GPU wait until the program has asked it for more. Raises LossError.
        """
        here = values.to("cpu", non_blocking=True)
        arrival = torch.cuda.Event() if values.is_cuda else None
        if arrival is not None:
            arrival.record()
        self._coming.append(_Fetched(step, rate, names, here, arrival))
        if len(self._coming) > 1:
            self._take()

    def settle(self) -> None:
        """Take in all that is on its way; raises LossError."""
        while self._coming:
            self._take()

    def _take(self) -> None:
        """Wait for the terms that were sent for first, check them, and count them."""
        step, rate, names, values, arrival = self._coming.popleft()
        if arrival is not None:
            arrival.synchronize()
        self.last = dict(zip(names, values.tolist(), strict=True))
        if not all(map(math.isfinite, self.last.values())):
            listed = ", ".join(f"{name} {value:.4g}" for name, value in self.last.items())
            raise LossError(
                f"{self.stage}: loss not finite at step {step}: {listed}; lower {self.stage}.optimizer.lr"
            )
        self._count(step, rate)

    def _count(self, step: int, rate: float) -> None:
        """Add the last terms to their stretch, and a row where it ends."""
        for name, value in self.last.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1
        if (step + 1) % self.every == 0:
            means = {name: value / self.count for name, value in self.sums.items()}
            self.rows.append({"step": step + 1, "lr": rate, **means})
            self.sums, self.count = {}, 0

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, once it has settled."""
        return {"rows": self.rows, "sums": self.sums, "count": self.count}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint kept; raises KeyError, TypeError or ValueError where it is no such thing."""
        rows, sums, count = (state[key] for key in ("rows", "sums", "count"))
        self.rows, self.sums, self.count = [dict(row) for row in rows], dict(sums), int(count)

    def csv(self) -> bytes:
        """The rows as csv, numbers to six digits; empty without rows."""
        out = io.StringIO()
        writer = csv.DictWriter(out, self.rows[0], lineterminator="\n") if self.rows else None
        if writer:
            writer.writeheader()
            writer.writerows(
                {key: value if key == "step" else f"{value:.6g}" for key, value in row.items()}
                for row in self.rows
            )
        return out.getvalue().encode()
