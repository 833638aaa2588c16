"""What every stage does before its work: read params.yaml, check all of it, find out about the
machine; and where artifacts lie.

How every training stage runs: its name says which section, curve and weights file are its own.

How every per-image stage runs: its name says which section, layout and file are its own.
"""

import functools
import logging
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import yaml
from torch import nn

from pipeline.core import engine, resume, trainer
from pipeline.core.device import Runtime, resolve
from pipeline.core.weights import save_weights
from pipeline.errors import UserError
from pipeline.params import Parameters, parse
from pipeline.params.aliases import check_aliases
from pipeline.params.section import Section

DATA = Path("data")
DATASET = DATA / "dataset"
CURVES = DATA / "curves"
PRESETS = Path(__file__).resolve().parent.parent / "pipeline" / "presets"


def read_parameters(path: Path) -> Parameters:
    """The checked parameters of a yaml file; raises UserError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; `weakmask init` writes one") from error
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); name a file of parameters"
        ) from error
    except ValueError as error:
        raise UserError(f"{path}: not valid YAML: {error}") from error
    try:
        check_aliases(text)
        values = yaml.safe_load(text)
    except Exception as error:  # PyYAML raises nearly anything where a tag does not fit its value
        raise UserError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise UserError(
            f"{path}: must hold sections such as `classifier:`; `weakmask init` writes a whole file"
        )
    return parse(values, str(path))


def artifact(stage: str, suffix: str = ".h5") -> Path:
    """The file that `stage` writes."""
    return DATA / f"{stage}{suffix}"


def stage(work: Callable[..., None]) -> click.Command:
    """Make a command of a function (parameters, runtime, *arguments): errors that a person can mend
    end it in one line.
    """

    @click.command(help=work.__doc__)
    @click.option(
        "--params",
        default="params.yaml",
        show_default=True,
        type=click.Path(path_type=Path),
        help="Parameter file.",
    )
    @functools.wraps(work)
    def command(params: Path, **arguments: object) -> None:
        """The stage with the parameters of a file; a UserError becomes click's error."""
        logging.basicConfig(format="%(message)s", level=logging.INFO)
        warnings.filterwarnings("ignore", category=UserWarning, module="torch")
        try:
            parameters = read_parameters(params)
            work(parameters, resolve(**parameters.runtime.model_dump()), **arguments)
        except UserError as error:
            raise click.ClickException(str(error)) from error

    return command


__all__ = [
    "CURVES",
    "DATA",
    "DATASET",
    "PRESETS",
    "Parameters",
    "Runtime",
    "artifact",
    "read_parameters",
    "stage",
]


def fit(
    stage: str,
    network: nn.Module,
    samples: trainer.Samples,
    objective: trainer.LossFn,
    parameters: Parameters,
    inputs: Sequence[Path],
    runtime: Runtime,
    *,
    new: Iterable[nn.Parameter],
    prepare: Callable[[nn.Module], None] = lambda network: None,
) -> None:
    """Train `network` as section `stage` of the parameters says and write its curve.

    inputs: files, or the dataset's folder, that the result follows from; new: parameters without
    pretrained values; prepare: called when training begins.
    """
    section, seed = getattr(parameters, stage), parameters.base.seed
    trainer.train(
        network,
        samples,
        objective,
        trainer.TrainConfig(
            epochs=section.epochs, batch=section.batch, seed=seed, **section.optimizer.model_dump()
        ),
        new=new,
        stage=stage,
        fingerprint=resume.fingerprint({"section": section.model_dump(), "seed": seed}, inputs),
        runtime=runtime,
        curve=CURVES / f"{stage}.csv",
        prepare=prepare,
    )


def save(stage: str, network: nn.Module, runtime: Runtime, **header: Any) -> None:
    """Write the weights of `stage` with what is needed to rebuild the network, and drop its
    checkpoints.
    """
    if runtime.is_main_process:
        save_weights(artifact(stage, ".safetensors"), network, stage, **header)
        resume.cleanup(runtime.work, stage)


def run(
    stage: str,
    task: engine.Task,
    names: Sequence[str],
    classes: Sequence[str],
    section: Section,
    inputs: Sequence[Path],
    runtime: Runtime,
) -> None:
    """Apply `task` to the images `names` and write the artifact of `stage`.

    section and inputs (files, or the dataset's folder) are what the result follows from: finished
    shards are taken up again only if these are the same.
    """
    engine.run(
        task,
        names,
        artifact(stage),
        stage=stage,
        format_=stage,
        classes=classes,
        fingerprint=resume.fingerprint(section.model_dump(), inputs),
        runtime=runtime,
    )
