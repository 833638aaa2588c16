"""The command line beside DVC: write parameters, check a source, look into artifacts, print the
scores.

weakmask init --preset folder --source ~/images
weakmask check ~/images
weakmask inspect data/cams.h5 2007_000504 -o sheet.png
weakmask browse --rev one-scale
weakmask export labels --format voc -o exported
weakmask report-diff HEAD data/report
weakmask predict data/semantic.safetensors photos/ -o out
weakmask export-onnx data/semantic.safetensors -o semantic.onnx
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from pipeline.errors import UserError
from pipeline.views.report import percent
from stages._command import DATA, PRESETS, artifact
from stages.cli.browse import browse
from stages.cli.compare import compare
from stages.cli.export import export
from stages.cli.export_onnx import export_onnx
from stages.cli.inspect import inspect
from stages.cli.predict import predict
from stages.cli.report_diff import report_diff


class Commands(click.Group):
    """A group whose commands end with one line for what the person can mend."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a UserError becomes click's error."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Weakly supervised segmentation: images and the names of what is in them go in, masks and
    trained models come out.

    The graph itself runs with `dvc repro`; variants with `dvc exp run -S section.name=value`.
    """


@main.command()
@click.option(
    "--preset",
    default="folder",
    show_default=True,
    help="Parameter set to start from; `list` shows them.",
)
@click.option("--source", type=click.Path(path_type=Path), help="Folder of the images.")
@click.option(
    "-o", "--output", default="params.yaml", show_default=True, type=click.Path(path_type=Path)
)
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def init(preset: str, source: Path | None, output: Path, force: bool) -> None:
    """Write params.yaml from a preset for your own images."""
    from ruamel.yaml import YAML

    from pipeline.readers.validation import guess

    presets = sorted(path.stem for path in PRESETS.glob("*.yaml"))
    if preset not in presets:
        raise UserError(f"--preset: there is no {preset!r}; choose from {', '.join(presets)}")
    if output.exists() and not force:
        raise UserError(f"{output}: exists; add --force to replace it")
    yaml = YAML()
    values = yaml.load(PRESETS / f"{preset}.yaml")
    if source is not None:
        if not source.is_dir():
            raise UserError(f"--source: {source} is no folder")
        values["dataset"]["source"] = str(source if _inside(source) else source.resolve())
        values["dataset"]["format"] = guess(source)
    elif preset != "scenes":
        raise UserError(f"--source: preset {preset} needs the folder of the images")
    with output.open("w", encoding="utf-8") as file:
        yaml.dump(values, file)
    click.echo(
        f"wrote {output}; next: weakmask check {values['dataset']['source']}, then dvc repro"
    )


def _inside(source: Path) -> bool:
    """Whether a folder lies in the repository, so that a relative path to it also holds in DVC's
    temporary copies.
    """
    return source.resolve().is_relative_to(Path.cwd())


@main.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "format_",
    default="auto",
    show_default=True,
    help="voc, coco, folder, or auto by the layout.",
)
def check(source: Path, format_: str) -> None:
    """Report every problem of a SOURCE folder at once.

    The exit status is 1 if one of them is an error, which stops the stage dataset; warnings do not.
    """
    from pipeline.readers.validation import check as check_source

    problems = check_source(format_, source)
    for problem in problems:
        click.echo(f"{problem.level}: {problem.where}: {problem.what}; {problem.do}")
    errors = sum(problem.level == "error" for problem in problems)
    click.echo(f"{source}: {errors} errors, {len(problems) - errors} warnings")
    sys.exit(1 if errors else 0)


@main.command()
def scores() -> None:
    """Print the scores, and where the report lies."""
    rows = [("step", "split", "mIoU", "instance AP50")]
    for name, key, split, title in (
        ("cams", "best_miou", "train", "CAM, best threshold"),
        ("cams", "miou", "train", "CAM, fixed threshold"),
        ("seeds", "miou", "train", "seeds, where sure"),
        ("walk", "best_miou", "train", "walk, best threshold"),
        ("labels", "miou", "train", "pseudo-labels"),
        ("predictions", "miou", "val", "final models"),
    ):
        path = artifact(f"scores/{name}", ".json")
        values = _scores_of(path, name) if path.is_file() else {}
        note = f"  of {percent(values['coverage'])} % of the pixels" if "coverage" in values else ""
        ap50 = percent(values.get("AP50")) if name in ("labels", "predictions") else ""
        rows.append((title, split, percent(values.get(key)) + note, ap50))
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    for row in rows:
        click.echo(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    click.echo(f"report: {DATA / 'report' / 'index.html'}")


def _scores_of(path: Path, name: str) -> Mapping[str, float]:
    """The scores of a step as the stage scores wrote them; raises UserError."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))[name]
        return {key: float(value) for key, value in values.items() if value is not None}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path}: damaged ({error}); make it again with `dvc repro -f scores@{name}`"
        ) from error


main.add_command(browse)
main.add_command(compare)
main.add_command(export)
main.add_command(export_onnx)
main.add_command(inspect)
main.add_command(predict)
main.add_command(report_diff)


if __name__ == "__main__":
    main()
