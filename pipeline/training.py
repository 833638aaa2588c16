"""The training loop of all networks, over Hugging Face Accelerate.

Sampling, augmentation and dropout are functions of (seed, step), so a checkpoint needs no generator: a killed run that goes on gives
the same weights on CPU as an undisturbed one, and the number of loader processes changes nothing.
"""

import io
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate
from tqdm import tqdm

from pipeline import work
from pipeline.backbones import share_batch
from pipeline.curve import ROWS, Curve
from pipeline.errors import UserError
from pipeline.runtime import Runtime
from pipeline.weights import WeightsError, load_checkpoint

log = logging.getLogger(__name__)


class TrainingError(UserError):
    """Training cannot start or go on; the message says why."""


class Samples(Protocol):
    """What is learnt from: samples by number, augmented with torch's generator at each access."""

    def __len__(self) -> int: ...
    def __getitem__(self, number: int, /) -> Any: ...


Objective = Callable[[nn.Module, Any, "Step"], Mapping[str, Tensor]]
"""(network, batch, step) to loss terms; the entry `loss` is minimised."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes that train together."""

    accelerator: Accelerator

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the ranks, for normalisers that span the whole batch: DDP averages gradients, so counts are averaged too."""
        return (
            self.accelerator.reduce(values.float(), "mean") if self.accelerator.num_processes > 1 else values
        )

    def same(self, number: int) -> bool:
        """Whether all ranks hold the same number."""
        tensor = torch.tensor([number], device=self.accelerator.device)
        return bool((self.accelerator.gather(tensor) == number).all())


@dataclass(frozen=True, slots=True)
class Step:
    """Where a training stands, and with whom: share of the steps done, in [0,1), and passes over the pictures, from 0."""

    ranks: Ranks
    progress: float
    epoch: float


@dataclass(frozen=True, slots=True)
class Plan:
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

    def steps(self, pictures: int) -> int:
        """Number of optimiser steps, at least one."""
        return max(1, math.ceil(self.epochs * pictures / self.batch))

    def factor(self, step: int, steps: int) -> float:
        """Learning rate at `step` as a share of the first one: linear warm-up, then (1 - t/T)^power."""
        rising = min(1.0, (step + 1) / max(1.0, self.warmup * steps))
        return rising * (1 - step / steps) ** self.power


class Stream(Dataset[Any]):
    """An endless sequence of training samples: position p is picture p mod n of the p div n-th permutation.

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
                # out of a loader process an exception would come with that process's traceback for a message
                return error


def train(
    network: nn.Module,
    samples: Samples,
    objective: Objective,
    plan: Plan,
    *,
    new: Iterable[nn.Parameter],
    stage: str,
    fingerprint: str,
    runtime: Runtime,
    curve: Path,
    prepare: Callable[[nn.Module], None] = lambda network: None,
) -> nn.Module:
    """Minimise the objective's `loss` over the samples and return the trained network; writes the csv `curve`.

    new: parameters without pretrained values, which learn at head_lr times the rate.
    prepare(network) is called after every switch to training mode (to fix batch normalisation, say). Raises TrainingError without
    pictures and for a batch that the ranks cannot share, LossError for a loss that is not finite, before anything is kept of it.
    """
    if not len(samples):
        raise TrainingError(
            f"{stage}: no pictures to learn from; look at the split names in data/dataset/pictures.csv"
        )
    if plan.batch % runtime.world:
        raise TrainingError(f"{stage}.batch: {plan.batch} does not divide over {runtime.world} ranks")
    accelerator = _accelerator(runtime)
    network.to(accelerator.device)
    if runtime.world > 1:
        share_batch(network)
    optimizer = _optimizer(network, set(new), plan)
    steps = plan.steps(len(samples))
    folder = work.folder(runtime.work, stage, fingerprint)
    checkpoint, losses = folder / "checkpoint.pt", Curve(stage, max(1, steps // ROWS))
    start = _resume(checkpoint, network, optimizer, losses)
    if start:
        log.info("%s: goes on at step %d of %d", stage, start, steps)
    ranks, saved = Ranks(accelerator), time.monotonic()
    if not ranks.same(start):
        raise TrainingError(f"{stage}: the ranks found different checkpoints; all must share {runtime.work}")
    model, optimizer = accelerator.prepare(network, optimizer)
    model.train()
    prepare(network)
    batches = _loader(samples, plan, start, steps, runtime)
    bar = tqdm(
        batches, desc=stage, initial=start, total=steps, unit="step", disable=not runtime.leads, mininterval=1
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
            if runtime.leads and time.monotonic() - saved > runtime.checkpoint and step + 1 < steps:
                losses.settle()
                _save(checkpoint, step + 1, network, optimizer, losses)
                saved = time.monotonic()
    losses.settle()
    accelerator.wait_for_everyone()
    if runtime.leads:
        curve.parent.mkdir(parents=True, exist_ok=True)
        work.write_atomically(curve, losses.csv())
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
    # Its state is global and refuses other settings: a second training in this process starts afresh, ranks keep their connection.
    AcceleratorState._reset_state(reset_partial_state=runtime.world == 1)
    precision = {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(runtime.precision, "no")
    accelerator = Accelerator(
        cpu=runtime.device.type == "cpu",
        mixed_precision=precision,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    if accelerator.num_processes != runtime.world:
        raise TrainingError(
            f"WORLD_SIZE is {runtime.world}, but {accelerator.num_processes} processes train together; "
            f"start them with torchrun or accelerate launch"
        )
    return accelerator


def _optimizer(network: nn.Module, new: set[nn.Parameter], plan: Plan) -> torch.optim.Optimizer:
    """Two groups: pretrained parameters at lr, new ones at head_lr times that."""
    learning = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learning if (p in new) == fresh], "lr": rate, "base_lr": rate}
        for fresh, rate in ((False, plan.lr), (True, plan.lr * plan.head_lr))
    ]
    groups = [group for group in groups if group["params"]]
    if plan.name == "sgd":
        return torch.optim.SGD(groups, lr=plan.lr, momentum=plan.momentum, weight_decay=plan.weight_decay)
    return torch.optim.AdamW(groups, lr=plan.lr, weight_decay=plan.weight_decay)


def _loader(samples: Samples, plan: Plan, start: int, steps: int, runtime: Runtime) -> DataLoader[Any]:
    """Batches of the steps from `start` on; every rank takes its own slice of each."""
    share = plan.batch // runtime.world

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
    """Raise TrainingError when a loader process is killed, which torch tells wherever the main process is just then.

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
    work.write_atomically(path, buffer.getvalue())


def _resume(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, losses: Curve) -> int:
    """Load a checkpoint if there is one; returns the step to go on with."""
    if not path.is_file():
        return 0
    again = "delete it to begin anew"
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
        raise TrainingError(f"{path}: is no checkpoint of this training ({error}); {again}") from error


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
