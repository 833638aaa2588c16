"""The training loop of all networks.

Sampling, augmentation and dropout are functions of (seed, step), so a checkpoint holds no random
state: an interrupted run resumes to the same weights on a CPU, whatever the number of loader
processes.
"""

import io
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate
from tqdm import tqdm

from pipeline.core import resume
from pipeline.core.device import Runtime
from pipeline.core.distributed import DistributedContext, map_tensors, parallel
from pipeline.core.loss_log import LossLog
from pipeline.core.weights import WeightsError, load_checkpoint
from pipeline.errors import UserError

LOG_ROWS = 100
"""Approximate number of rows of a loss log."""

log = logging.getLogger(__name__)


class TrainingError(UserError):
    """Training cannot start, resume or go on; the message says why."""


@dataclass(frozen=True, slots=True)
class TrainState:
    """The position in a training.

    Attributes:
        ranks: the processes that share the batch.
        progress: share of the steps done, in [0,1).
        epoch: passes over the images, from 0.
    """

    ranks: DistributedContext
    progress: float
    epoch: float


LossFn = Callable[[nn.Module, Any, TrainState], Mapping[str, Tensor]]
"""(network, batch, state) to loss terms; the entry `loss` is minimized."""


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
    schedule: str | Sequence[float]
    power: float
    warmup: float
    seed: int

    def steps(self, images: int) -> int:
        """Return the number of optimizer steps, at least one."""
        return max(1, math.ceil(self.epochs * images / self.batch))

    def factor(self, step: int, steps: int) -> float:
        """Return the learning rate at `step` as a share of `lr`: min(1, (t+1) / w) (1 - t/T)^power,
        with a warm-up of w = warmup T steps, or a tenth for each fraction of `schedule` behind.
        """
        rising = min(1.0, (step + 1) / max(1.0, self.warmup * steps))
        if isinstance(self.schedule, str):
            return rising * (1 - step / steps) ** self.power
        return rising * 0.1 ** sum(step >= drop * steps for drop in self.schedule)

    def optimizer(self, network: nn.Module, new: set[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimizer of two groups: parameters in `new` learn at head_lr times lr."""
        learning = [p for p in network.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in learning if (p in new) == fresh], "lr": rate, "base_lr": rate}
            for fresh, rate in ((False, self.lr), (True, self.lr * self.head_lr))
        ]
        groups = [group for group in groups if group["params"]]
        if self.name == "sgd":
            return torch.optim.SGD(
                groups, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay
            )
        return torch.optim.AdamW(groups, lr=self.lr, weight_decay=self.weight_decay)


class SampleStream(Dataset[Any]):
    """An endless sequence of samples: position p is image p mod n of the p div n-th permutation.

    Each sample is drawn with torch's generator seeded by (seed, p) alone.
    """

    def __init__(self, samples: Dataset[Any], seed: int) -> None:
        self.samples, self.seed = samples, seed
        self.count = len(samples)  # type: ignore[arg-type]  # torch leaves it to the subclasses
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.long)

    def __getitem__(self, position: int) -> Any:
        epoch, place = divmod(position, self.count)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(_mix(self.seed, epoch))
            self._order, self._epoch = torch.randperm(self.count, generator=generator), epoch
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_mix(self.seed + 1, position))
            try:
                return self.samples[int(self._order[place])]
            except UserError as error:
                # raised in a loader process it would bring that process's traceback along
                return error


def train(
    network: nn.Module,
    samples: Dataset[Any],
    loss_fn: LossFn,
    config: TrainConfig,
    *,
    new: Iterable[nn.Parameter],
    stage: str,
    fingerprint: str,
    runtime: Runtime,
    curve: Path,
    prepare: Callable[[nn.Module], None] | None = None,
) -> nn.Module:
    """Minimize the loss over the samples and return the trained network; write its loss log.

    Args:
        network: any module that is called by `loss_fn` only.
        samples: a map-style dataset, augmented with torch's generator at each access.
        loss_fn: see LossFn.
        config: length and optimizer.
        new: parameters without pretrained values, which learn at head_lr times the rate.
        stage: name of the section, for messages and unfinished work.
        fingerprint: of everything the result depends on; see resume.fingerprint.
        runtime: the machine.
        curve: CSV file of the loss log.
        prepare: called with the network in training mode, to fix batch normalization, say.

    Raises:
        TrainingError: no images, a batch that the ranks cannot share, a useless checkpoint, or
            Ctrl-C, once the step is finished and kept.
        LossError: a loss is not finite; nothing is kept of that step.
    """
    stream = SampleStream(samples, config.seed)
    _check(stage, stream.count, config.batch, runtime.world_size)
    ranks, device = DistributedContext.connect(runtime), runtime.device
    optimizer = config.optimizer(network.to(device), set(new))
    steps = config.steps(stream.count)
    path = resume.folder(runtime.work, stage, fingerprint) / "checkpoint.pt"
    losses = LossLog(stage, max(1, steps // LOG_ROWS))
    start, saved = _load(path, network, optimizer, losses), time.monotonic()
    _check_resume(stage, start, steps, ranks, runtime)
    model = parallel(network, runtime).train()
    scaler = torch.amp.GradScaler(device.type, enabled=runtime.precision == torch.float16)
    if prepare is not None:
        prepare(network)
    batches = _loader(stream, config, start, steps, runtime)
    quiet = not runtime.is_main_process
    with (
        _watched_loaders(stage),
        _first_interrupt(stage, alone=runtime.world_size == 1) as interrupted,
        tqdm(
            batches, stage, steps, initial=start, unit="step", disable=quiet, mininterval=1
        ) as bar,
    ):
        for step, batch in enumerate(_fetched(bar), start):
            torch.manual_seed(_mix(config.seed + 2, step * runtime.world_size + runtime.rank))
            rate = config.factor(step, steps)
            state = TrainState(ranks, step / steps, step * config.batch / stream.count)
            batch = map_tensors(lambda part: part.to(device, non_blocking=True), batch)
            with _explained(losses):
                terms = loss_fn(model, batch, state)
            _update(optimizer, scaler, rate, terms["loss"])
            values = torch.stack([value.detach().float() for value in terms.values()])
            losses.add(step, config.lr * rate, tuple(terms), ranks.mean(values))
            if losses.last:
                bar.set_postfix(loss=f"{losses.last['loss']:.3f}", refresh=False)
            due = interrupted.is_set() or time.monotonic() - saved > runtime.checkpoint
            if due and step + 1 < steps and runtime.is_main_process:
                losses.flush()
                _save(path, step + 1, network, optimizer, losses)
                saved = time.monotonic()
            if interrupted.is_set() and step + 1 < steps:
                raise TrainingError(
                    f"{stage}: interrupted; the same command resumes at step {step + 1} of {steps}"
                )
    losses.flush()
    if runtime.is_main_process:
        resume.write_atomically(curve, losses.csv())
    return network.eval()


def _check_resume(
    stage: str, start: int, steps: int, ranks: DistributedContext, runtime: Runtime
) -> None:
    """Log where a training resumes; raise TrainingError if the ranks resume at different steps."""
    if start:
        log.info("%s: resumes at step %d of %d", stage, start, steps)
    if not ranks.agree(start, runtime.device):
        raise TrainingError(
            f"{stage}: the ranks found different checkpoints; all must share {runtime.work}"
        )


def _check(stage: str, images: int, batch: int, ranks: int) -> None:
    """Raise TrainingError if there are no images, or a batch that the ranks cannot share."""
    if not images:
        raise TrainingError(
            f"{stage}: no images to learn from; check the split names in data/dataset/images.csv"
        )
    if batch % ranks:
        raise TrainingError(
            f"{stage}.batch: {batch} is not divisible by the number of ranks, {ranks}"
        )


def _update(
    optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, rate: float, loss: Tensor
) -> None:
    """Take an optimizer step at `rate` (a share) of each group's base learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * rate
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()


def _loader(
    stream: SampleStream, config: TrainConfig, start: int, steps: int, runtime: Runtime
) -> DataLoader[Any]:
    """Return the batches of the steps from `start` on; every rank takes its own slice of each.

    On a CPU most cores are left to the network, whose threads wait for each other: a loader process
    per core takes up to 30 % off the speed of a training of small batches on two cores.
    """
    processes = runtime.workers // 4 if runtime.device.type == "cpu" else runtime.workers
    share = config.batch // runtime.world_size
    firsts = [step * config.batch + runtime.rank * share for step in range(start, steps)]
    return DataLoader(
        stream,
        batch_sampler=[list(range(first, first + share)) for first in firsts],
        num_workers=0 if processes == 1 else processes,
        collate_fn=_collate,
        worker_init_fn=_ignore_interrupts,
        pin_memory=runtime.device.type == "cuda",
    )


def _collate(samples: Sequence[Any]) -> Any:
    """Return a batch, or the first error among the samples."""
    errors = (sample for sample in samples if isinstance(sample, UserError))
    return next(errors, None) or default_collate(list(samples))


def _fetched(batches: Iterable[Any]) -> Iterator[Any]:
    """Yield the batches; raise the UserError that comes in place of one."""
    for batch in batches:
        if isinstance(batch, UserError):
            raise batch
        yield batch


@contextmanager
def _watched_loaders(stage: str) -> Iterator[None]:
    """Turn the errors of a loader process that was killed into TrainingError.

    torch raises RuntimeError in the main process, wherever it is; while a batch is taken over from
    the loader, the system raises another error.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        raise TrainingError(
            f"{stage}: a loader process was killed (out of memory?); run again, it resumes from "
            "its last checkpoint, if need be with fewer runtime.workers"
        ) from error


@contextmanager
def _first_interrupt(stage: str, *, alone: bool) -> Iterator[threading.Event]:
    """Yield what the first Ctrl-C sets instead of ending the program, as the second one does.

    alone: False leaves Ctrl-C as it is, as ranks would stop at different steps.
    """
    interrupted, default = threading.Event(), signal.default_int_handler

    def note(number: int, frame: Any) -> None:
        """Handle the first SIGINT; the second one finds Python's own handler."""
        interrupted.set()
        signal.signal(signal.SIGINT, default)
        log.info("%s: saves after this step; another Ctrl-C ends it without", stage)

    alone = alone and signal.getsignal(signal.SIGINT) is default
    if alone:
        signal.signal(signal.SIGINT, note)
    try:
        yield interrupted
    finally:
        if alone:
            signal.signal(signal.SIGINT, default)


def _ignore_interrupts(worker: int) -> None:
    """Have a loader process leave Ctrl-C, which all processes get, to the main one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _explained(losses: LossLog) -> Iterator[None]:
    """Where a loss fails, raise LossError if an earlier one was not finite."""
    try:
        yield
    except Exception:
        losses.flush()
        raise


def _save(path: Path, step: int, network: nn.Module, optimizer: Any, losses: LossLog) -> None:
    buffer = io.BytesIO()
    state = {
        "step": step,
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "curve": losses.state(),
    }
    torch.save(state, buffer)
    resume.write_atomically(path, buffer.getvalue())


def _load(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, losses: LossLog) -> int:
    """Load a checkpoint if there is one; return the step to resume at."""
    if not path.is_file():
        return 0
    again = "delete it to start over"
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
            f"{path}: not a checkpoint of this training ({error}); {again}"
        ) from error


def _mix(seed: int, number: int) -> int:
    """Return a well-spread 63-bit seed of two numbers (splitmix64)."""
    value = (seed * 0x9E3779B97F4A7C15 + number + 0x9E3779B97F4A7C15) & (2**64 - 1)
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return (value ^ (value >> 31)) >> 1
