"""What the stages share: their command line, the paths of their files, and how they run the
engines.

The name of a stage is the name of its section, its artifact and its loss log.
"""

import functools
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from pipeline.core import engine, resume
from pipeline.core.device import Runtime, resolve
from pipeline.errors import UserError
from pipeline.params import Parameters, parse
from pipeline.params.lengths import find_short
from pipeline.params.section import Section

if TYPE_CHECKING:  # loading torch takes two seconds, and half of the stages compute without it
    from torch import nn
    from torch.utils.data import Dataset

    from pipeline.core.trainer import LossFn

PARAMETERS = Path("params.yaml")
DATA = Path("data")
DATASET = DATA / "dataset"
CURVES = DATA / "curves"
log = logging.getLogger(__name__)


def artifact(stage: str, suffix: str = ".h5") -> Path:
    """Return the file that a stage writes."""
    return DATA / f"{stage}{suffix}"


def read_parameters(path: Path = PARAMETERS) -> Parameters:
    """Return the validated parameters of a YAML file; raise UserError."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; `weakmask init` writes one") from error
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); name a parameter file"
        ) from error
    except Exception as error:  # PyYAML raises nearly anything where a tag does not fit its value
        raise UserError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise UserError(
            f"{path}: must hold sections such as `classifier:`; `weakmask init` writes a whole file"
        )
    return parse(values, str(path))


def stage(work: Callable[..., None]) -> click.Command:
    """Make a command of work(parameters, runtime, **arguments); a UserError ends it in one line."""

    @click.command(help=work.__doc__)
    @click.option(
        "--params",
        default=PARAMETERS,
        show_default=True,
        type=click.Path(path_type=Path),
        help="Parameter file.",
    )
    @functools.wraps(work)
    def command(params: Path, **arguments: object) -> None:
        """Run the stage with the parameters of a file."""
        logging.basicConfig(format="%(message)s", level=logging.INFO)
        warnings.filterwarnings("ignore", category=UserWarning, module="torch")
        try:
            parameters = read_parameters(params)
            work(parameters, resolve(**parameters.runtime.model_dump()), **arguments)
        except UserError as error:
            raise click.ClickException(f"{error}{_undo()}") from error

    return command


def _undo() -> str:
    """Return how to take back what -S of a failed `dvc exp run` leaves in params.yaml; nothing
    outside of experiments, and in the copies of --temp and --queue.
    """
    if "DVC_EXP_BASELINE_REV" not in os.environ or ".dvc" in Path.cwd().parts:
        return ""
    return "\nparams.yaml keeps the values of -S; `git restore params.yaml` takes them back"


def run_per_image(
    stage: str,
    task: engine.Task,
    names: Sequence[str],
    classes: Sequence[str],
    section: Section,
    inputs: Sequence[Path],
    runtime: Runtime,
    *others: Section,
) -> None:
    """Apply `task` to the images `names` and write the artifact of `stage`.

    An interrupted run resumes only if `section`, `others` and `inputs` (files, or the folder of the
    dataset), on which the result depends, are the same.
    """
    engine.run(
        task,
        names,
        artifact(stage),
        stage=stage,
        classes=classes,
        fingerprint=resume.fingerprint(
            {"sections": [part.model_dump() for part in (section, *others)]}, inputs
        ),
        runtime=runtime,
    )


def train_stage(
    stage: str,
    network: "nn.Module",
    samples: "Dataset[Any]",
    loss_fn: "LossFn",
    parameters: Parameters,
    inputs: Sequence[Path],
    runtime: Runtime,
    *,
    new: "Iterable[nn.Parameter]",
    prepare: "Callable[[nn.Module], None] | None" = None,
) -> None:
    """Train `network` as section `stage` of the parameters says and write its loss log.

    Args:
        stage: name of the stage.
        network: what is trained, in place.
        samples: what it learns from.
        loss_fn: what is minimized.
        parameters: all parameters.
        inputs: files, or the folder of the dataset, on which the result depends.
        runtime: the machine.
        new: parameters without pretrained values.
        prepare: called with the network in training mode.
    """
    from pipeline.core import trainer

    section, seed = getattr(parameters, stage), parameters.base.seed
    short = find_short(parameters, stage, len(samples))  # type: ignore[arg-type]
    if short is not None and runtime.is_main_process:
        log.warning("%s: %s; %s", stage, *short)
    trainer.train(
        network,
        samples,
        loss_fn,
        trainer.TrainConfig(
            epochs=section.epochs, batch=section.batch, seed=seed, **section.optimizer.model_dump()
        ),
        new=new,
        stage=stage,
        fingerprint=resume.fingerprint(
            {"sections": [section.model_dump(), parameters.hints.model_dump()], "seed": seed},
            inputs,
        ),
        runtime=runtime,
        curve=CURVES / f"{stage}.csv",
        prepare=prepare,
    )


def save_stage(stage: str, network: "nn.Module", runtime: Runtime, **header: Any) -> None:
    """Write the weights of `stage`, with what rebuilds the network, and remove its checkpoints."""
    from pipeline.core.weights import save_weights

    if runtime.is_main_process:
        save_weights(artifact(stage, ".safetensors"), network, stage, **header)
        resume.cleanup(runtime.work, stage)


def save_untrained(stage: str, network: "nn.Module", runtime: Runtime, **header: Any) -> None:
    """Write what a stage without a training leaves: see save_stage, and an empty loss log."""
    if runtime.is_main_process:
        write_empty_curve(stage)
    save_stage(stage, network, runtime, **header)


def write_empty_curve(stage: str) -> None:
    """Write the loss log of a stage that did not train: DVC expects the file."""
    resume.write_atomically(CURVES / f"{stage}.csv", b"step,loss\n")
