"""What every stage does before its work: read params.yaml, check all of it, find out about the machine; and where artefacts lie."""

import functools
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import click
import yaml

from pipeline.errors import UserError
from pipeline.params import Parameters, parse
from pipeline.params.aliases import check_aliases
from pipeline.runtime import Runtime, resolve

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
        raise UserError(f"{path}: cannot be read ({error.strerror}); name a file of parameters") from error
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


def artefact(stage: str, suffix: str = ".h5") -> Path:
    """The file that `stage` writes."""
    return DATA / f"{stage}{suffix}"


def stage(work: Callable[..., None]) -> click.Command:
    """Make a command of a function (parameters, runtime, *arguments): errors that a person can mend end it in one line."""

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
    "artefact",
    "read_parameters",
    "stage",
]
