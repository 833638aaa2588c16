"""The training loop of all networks, over Hugging Face Accelerate.

Sampling, augmentation and dropout are functions of (seed, step), so a checkpoint needs no
generator: a killed run that goes on gives the same weights on CPU as an undisturbed one, and the
number of loader processes changes nothing.

The loss terms of a training: fetched from the device while the next step computes, checked, and
averaged into the curve.
"""

import csv
import io
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate
from tqdm import tqdm

from pipeline.core import resume
from pipeline.core.device import Runtime
from pipeline.core.weights import WeightsError, load_checkpoint
from pipeline.errors import UserError

ROWS = 100
"""Rows of a training curve, about."""


class LossError(UserError):
    """A loss is not finite; the message shows its terms."""


class _Fetched(NamedTuple):
    """Terms of a step on their way from the device, and what tells that they have arrived (None:
    they are here).
    """

    step: int
    rate: float
    names: tuple[str, ...]
    values: Tensor
    arrival: Any


@dataclass(slots=True)
class Curve:
    """Means of the loss terms over equal stretches of `every` steps; `last` are those of the last
    step that has arrived.
    """

    stage: str
    every: int
    rows: list[dict[str, float]] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    count: int = 0
    last: Mapping[str, float] = field(default_factory=dict)
    _coming: deque[_Fetched] = field(default_factory=deque)

    def add(self, step: int, rate: float, names: tuple[str, ...], values: Tensor) -> None:
        """Send for the terms [T] of a step at learning rate `rate`, and take in those of the step
        before.

        To ask for this step's would let a GPU wait until the program has asked it for more. Raises
        LossError.
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
        """Go on from what a checkpoint kept; raises KeyError, TypeError or ValueError where it is
        no such thing.
        """
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


log = logging.getLogger(__name__)


class TrainingError(UserError):
    """Training cannot start or go on; the message says why."""


class Samples(Protocol):
    """What is learned from: samples by number, augmented with torch's generator at each access."""

    def __len__(self) -> int: ...
    def __getitem__(self, number: int, /) -> Any: ...


LossFn = Callable[[nn.Module, Any, "Step"], Mapping[str, Tensor]]
"""(network, batch, step) to loss terms; the entry `loss` is minimized."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes that train together."""

    accelerator: Accelerator

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the ranks, for normalizers that span the whole batch: DDP averages gradients,
        so counts are averaged too.
        """
        return (
            self.accelerator.reduce(values.float(), "mean")
            if self.accelerator.num_processes > 1
            else values
        )

    def same(self, number: int) -> bool:
        """Whether all ranks hold the same number."""
        tensor = torch.tensor([number], device=self.accelerator.device)
        return bool((self.accelerator.gather(tensor) == number).all())


@dataclass(frozen=True, slots=True)
class Step:
    """Where a training stands, and with whom: share of the steps done, in [0,1), and passes over
    the images, from 0.
    """

    ranks: Ranks
    progress: float
    epoch: float


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How long and how fast a network learns; names as in section `optimizer` of params.yaml."""

    epochs: float
    batch: int
    name: str
    lr: float
    head_lr: float
    weight_decay: float
    momentum: float
    power: float
    warmup: float
    seed: int

    def steps(self, images: int) -> int:
        """Number of optimizer steps, at least one."""
        return max(1, math.ceil(self.epochs * images / self.batch))

    def factor(self, step: int, steps: int) -> float:
        """Learning rate at `step` as a share of the first one: linear warm-up, then (1 -
        t/T)^power.
        """
        rising = min(1.0, (step + 1) / max(1.0, self.warmup * steps))
        return rising * (1 - step / steps) ** self.power


class Stream(Dataset[Any]):
    """An endless sequence of training samples: position p is image p mod n of the p div n-th
    permutation.

    Each sample is drawn with torch's generator seeded by (seed, p) alone.
    """

    def __init__(self, samples: Samples, seed: int) -> None:
        self.samples, self.seed = samples, seed
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.long)

    def __getitem__(self, position: int) -> Any:
        epoch, place = divmod(position, len(self.samples))
        if epoch != self._epoch:
            self._order = torch.randperm(
                len(self.samples), generator=torch.Generator().manual_seed(_mix(self.seed, epoch))
            )
            self._epoch = epoch
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_mix(self.seed + 1, position))
            try:
                return self.samples[int(self._order[place])]
            except UserError as error:
                # out of a loader process an exception would come with that process's traceback for
                # a message
                return error


def train(
    network: nn.Module,
    samples: Samples,
    objective: LossFn,
    plan: TrainConfig,
    *,
    new: Iterable[nn.Parameter],
    stage: str,
    fingerprint: str,
    runtime: Runtime,
    curve: Path,
    prepare: Callable[[nn.Module], None] = lambda network: None,
) -> nn.Module:
    """Minimize the objective's `loss` over the samples and return the trained network; writes the
    csv `curve`.

    new: parameters without pretrained values, which learn at head_lr times the rate.
    prepare(network) is called after every switch to training mode (to fix batch normalization,
    say). Raises TrainingError without images and for a batch that the ranks cannot share, LossError
    for a loss that is not finite, before anything is kept of it.
    """
    if not len(samples):
        raise TrainingError(
            f"{stage}: no images to learn from; look at the split names in data/dataset/images.csv"
        )
    if plan.batch % runtime.world_size:
        raise TrainingError(
            f"{stage}.batch: {plan.batch} does not divide over {runtime.world_size} ranks"
        )
    accelerator = _accelerator(runtime)
    network.to(accelerator.device)
    optimizer = _optimizer(network, set(new), plan)
    steps = plan.steps(len(samples))
    folder = resume.folder(runtime.work, stage, fingerprint)
    checkpoint, losses = folder / "checkpoint.pt", Curve(stage, max(1, steps // ROWS))
    start = _resume(checkpoint, network, optimizer, losses)
    if start:
        log.info("%s: goes on at step %d of %d", stage, start, steps)
    ranks, saved = Ranks(accelerator), time.monotonic()
    if not ranks.same(start):
        raise TrainingError(
            f"{stage}: the ranks found different checkpoints; all must share {runtime.work}"
        )
    model, optimizer = accelerator.prepare(network, optimizer)
    model.train()
    prepare(network)
    batches = _loader(samples, plan, start, steps, runtime)
    bar = tqdm(
        batches,
        desc=stage,
        initial=start,
        total=steps,
        unit="step",
        disable=not runtime.is_main_process,
        mininterval=1,
    )
    with _workers_watched(stage):
        for step, batch in enumerate(_fetched(bar), start):
            torch.manual_seed(_mix(plan.seed + 2, step))
            rate = plan.factor(step, steps)
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * rate
            now = Step(ranks, step / steps, step * plan.batch / len(samples))
            with _explained(losses):
                terms = objective(model, _to(batch, accelerator.device), now)
            optimizer.zero_grad(set_to_none=True)
            accelerator.backward(terms["loss"])
            optimizer.step()
            losses.add(step, plan.lr * rate, tuple(terms), _stacked(terms, ranks))
            if losses.last:
                bar.set_postfix(loss=f"{losses.last['loss']:.3f}", refresh=False)
            if (
                runtime.is_main_process
                and time.monotonic() - saved > runtime.checkpoint
                and step + 1 < steps
            ):
                losses.settle()
                _save(checkpoint, step + 1, network, optimizer, losses)
                saved = time.monotonic()
    losses.settle()
    accelerator.wait_for_everyone()
    if runtime.is_main_process:
        curve.parent.mkdir(parents=True, exist_ok=True)
        resume.write_atomically(curve, losses.csv())
    accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    return network.eval()


def _stacked(terms: Mapping[str, Tensor], ranks: Ranks) -> Tensor:
    """The loss terms [T] of the whole batch, the same for all ranks."""
    return ranks.mean(torch.stack([value.detach().float() for value in terms.values()]))


@contextmanager
def _explained(losses: Curve) -> Iterator[None]:
    """Where an objective fails, a loss before that was not finite is the reason to tell of."""
    try:
        yield
    except Exception:
        losses.settle()
        raise


def _accelerator(runtime: Runtime) -> Accelerator:
    # Its state is global and refuses other settings: a second training in this process starts
    # afresh, ranks keep their connection.
    AcceleratorState._reset_state(reset_partial_state=runtime.world_size == 1)
    precision = {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(runtime.precision, "no")
    accelerator = Accelerator(
        cpu=runtime.device.type == "cpu",
        mixed_precision=precision,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    if accelerator.num_processes != runtime.world_size:
        raise TrainingError(
            f"WORLD_SIZE is {runtime.world_size}, but {accelerator.num_processes} processes train together; "
            f"start them with torchrun or accelerate launch"
        )
    return accelerator


def _optimizer(
    network: nn.Module, new: set[nn.Parameter], plan: TrainConfig
) -> torch.optim.Optimizer:
    """Two groups: pretrained parameters at lr, new ones at head_lr times that."""
    learning = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learning if (p in new) == fresh], "lr": rate, "base_lr": rate}
        for fresh, rate in ((False, plan.lr), (True, plan.lr * plan.head_lr))
    ]
    groups = [group for group in groups if group["params"]]
    if plan.name == "sgd":
        return torch.optim.SGD(
            groups, lr=plan.lr, momentum=plan.momentum, weight_decay=plan.weight_decay
        )
    return torch.optim.AdamW(groups, lr=plan.lr, weight_decay=plan.weight_decay)


def _loader(
    samples: Samples, plan: TrainConfig, start: int, steps: int, runtime: Runtime
) -> DataLoader[Any]:
    """Batches of the steps from `start` on; every rank takes its own slice of each."""
    share = plan.batch // runtime.world_size

    def positions() -> Iterator[list[int]]:
        """For each step the places in the stream that this rank takes."""
        for step in range(start, steps):
            first = step * plan.batch + runtime.rank * share
            yield list(range(first, first + share))

    return DataLoader(
        Stream(samples, plan.seed),
        batch_sampler=list(positions()),
        num_workers=0 if runtime.workers == 1 else runtime.workers,
        collate_fn=_collate,
        pin_memory=runtime.device.type == "cuda",
    )


def _collate(samples: Sequence[Any]) -> Any:
    """A batch, or the first reason why there is none."""
    return next((one for one in samples if isinstance(one, UserError)), None) or default_collate(
        list(samples)
    )


def _fetched(batches: Iterable[Any]) -> Iterator[Any]:
    """The batches; raises the UserError that came in the place of one."""
    for batch in batches:
        if isinstance(batch, UserError):
            raise batch
        yield batch


@contextmanager
def _workers_watched(stage: str) -> Iterator[None]:
    """Raise TrainingError when a loader process is killed, which torch tells wherever the main
    process is just then.

    While a batch is being taken over from the process, the system tells instead.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        raise TrainingError(
            f"{stage}: a loader process was killed (out of memory?); run again, it goes on from its last checkpoint, "
            f"if need be with fewer runtime.workers"
        ) from error


def _save(path: Path, step: int, network: nn.Module, optimizer: Any, losses: Curve) -> None:
    buffer = io.BytesIO()
    state = {
        "step": step,
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "curve": losses.state(),
    }
    torch.save(state, buffer)
    resume.write_atomically(path, buffer.getvalue())


def _resume(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, losses: Curve) -> int:
    """Load a checkpoint if there is one; returns the step to go on with."""
    if not path.is_file():
        return 0
    again = "delete it to begin again"
    try:
        state = load_checkpoint(path)
    except WeightsError as error:
        raise TrainingError(f"{error}; {again}") from error
    try:
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        losses.restore(state["curve"])
        return int(state["step"])
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        raise TrainingError(
            f"{path}: is no checkpoint of this training ({error}); {again}"
        ) from error


def _to(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    return [_to(part, device) for part in batch]


def _mix(seed: int, number: int) -> int:
    """A well-spread 63-bit seed from two numbers (splitmix64)."""
    value = (seed * 0x9E3779B97F4A7C15 + number + 0x9E3779B97F4A7C15) & (2**64 - 1)
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return (value ^ (value >> 31)) >> 1
