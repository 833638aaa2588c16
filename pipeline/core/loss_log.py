"""The loss terms of a training: read from the device, checked, and averaged into a table."""

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import UserError

DELAY = 10
"""Steps whose losses are read from the device together, as each read waits for it."""


class LossError(UserError):
    """A loss is not finite; the message shows its terms."""


@dataclass(slots=True)
class LossLog:
    """Means of the loss terms over stretches of `every` steps.

    `last` are the terms of the last step that was read from the device.
    """

    stage: str
    every: int
    rows: list[dict[str, float]] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    count: int = 0
    last: Mapping[str, float] = field(default_factory=dict)
    _unread: list[tuple[int, float, tuple[str, ...], Tensor]] = field(default_factory=list)

    def add(self, step: int, lr: float, names: tuple[str, ...], values: Tensor) -> None:
        """Add the terms [T] of a step; raise LossError if one that is read now is not finite."""
        self._unread.append((step, lr, names, values))
        if len(self._unread) == DELAY:
            self.flush()

    def flush(self) -> None:
        """Read all terms that are still on the device; raise LossError if one is not finite."""
        if not self._unread:
            return
        numbers = iter(torch.cat([values for *_, values in self._unread]).tolist())
        unread, self._unread = self._unread, []
        for step, lr, names, _ in unread:
            self._count(step, lr, {name: next(numbers) for name in names})

    def _count(self, step: int, lr: float, terms: dict[str, float]) -> None:
        """Add terms to their stretch, and a row where it ends."""
        self.last = terms
        if not all(map(math.isfinite, terms.values())):
            listed = ", ".join(f"{name} {value:.4g}" for name, value in terms.items())
            raise LossError(
                f"{self.stage}: loss not finite at step {step}: {listed}; lower "
                f"{self.stage}.optimizer.lr"
            )
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1
        if (step + 1) % self.every == 0:
            means = {name: value / self.count for name, value in self.sums.items()}
            self.rows.append({"step": step + 1, "lr": lr, **means})
            self.sums, self.count = {}, 0

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of a flushed log."""
        return {"rows": self.rows, "sums": self.sums, "count": self.count}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Load what `state` returned; raise KeyError, TypeError or ValueError for anything else."""
        rows, sums, count = (state[key] for key in ("rows", "sums", "count"))
        self.rows, self.sums, self.count = [dict(row) for row in rows], dict(sums), int(count)

    def csv(self) -> bytes:
        """Return the rows as CSV, numbers to six digits; empty without rows."""
        out = io.StringIO()
        if self.rows:
            writer = csv.DictWriter(out, self.rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(
                {key: value if key == "step" else f"{value:.6g}" for key, value in row.items()}
                for row in self.rows
            )
        return out.getvalue().encode()
