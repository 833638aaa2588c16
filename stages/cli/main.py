"""The weakmask command: what DVC does not do (write parameters, check a source, inspect, export).

weakmask fetch voc12 --to ~/voc
weakmask init --preset folder --source ~/images
weakmask check ~/images
weakmask run
weakmask inspect data/cams.h5 2007_000504 -o sheet.png
weakmask browse --rev one-scale
weakmask pick -n 20 -o to_correct && weakmask hints add to_correct
weakmask export labels --format voc -o exported
weakmask report-diff HEAD data/report
weakmask predict data/semantic.safetensors photos/ -o out
weakmask export-onnx data/semantic.safetensors -o semantic.onnx
weakmask import res50_cam.pth --from irn-cam -o data/classifier.safetensors
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from pipeline.errors import UserError

COMMANDS = {
    "fetch": "Download a published data set for the preset of the same name.",
    "init": "Write params.yaml from a preset for your own images.",
    "check": "Report all problems of a SOURCE folder, and its classes.",
    "run": "Run the stages that changed, or those of TARGETS and what they need (`dvc repro`).",
    "scores": "Print the scores of all steps and the path of the report.",
    "inspect": "Describe an ARTIFACT and what is odd in it, or draw one of its images.",
    "browse": "Browse all artifacts in a local web page.",
    "report-diff": "Compare report A with report B (default: data/report) in a page, and print the "
    "scores.",
    "compare": "Print the scores of finished DVC experiments, averaged over their seeds.",
    "predict": "Segment new images with a final model.",
    "pick": "Pick the images most worth correcting, with their pseudo-labels.",
    "hints": "Add corrected masks to the hints of the source.",
    "export": "Export masks as VOC, COCO or YOLO.",
    "export-onnx": "Write a final model as ONNX.",
    "import": "Convert weights that a method's authors published.",
}
"""What `weakmask --help` says, in the order of use, without loading the commands."""


class Commands(click.Group):
    """A group that loads a command from the module of its name, and reports a UserError in one
    line.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; those that are not in this file are loaded."""
        return super().get_command(ctx, cmd_name) or _load(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the names of all commands with what they do."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn a UserError into click's error."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            what, _, advice = str(error).rpartition("; ")
            if "`dvc repro" in advice and not Path("dvc.yaml").exists():
                where = f"{Path.cwd()} is not a weakmask project (it has no dvc.yaml)"
                raise click.ClickException(f"{what}; {where}: change to its folder") from error
            raise click.ClickException(str(error)) from error


def _load(name: str) -> click.Command | None:
    """Return a command of another file, which is loaded now: --help is quick that way."""
    match name:
        case "fetch":
            from stages.cli.fetch import fetch as command
        case "init":
            from stages.cli.init import init as command
        case "check":
            from stages.cli.init import check as command
        case "run":
            from stages.cli.run import run as command
        case "inspect":
            from stages.cli.inspect import inspect as command
        case "browse":
            from stages.cli.browse import browse as command
        case "report-diff":
            from stages.cli.report_diff import report_diff as command
        case "compare":
            from stages.cli.compare import compare as command
        case "predict":
            from stages.cli.predict import predict as command
        case "pick":
            from stages.cli.hints import pick as command
        case "hints":
            from stages.cli.hints import hints as command
        case "export":
            from stages.cli.export import export as command
        case "export-onnx":
            from stages.cli.export_onnx import export_onnx as command
        case "import":
            from stages.cli.import_weights import import_weights as command
        case _:
            return None
    return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="weakmask", message="%(package)s %(version)s")
def main() -> None:
    """Weakly supervised segmentation: images and their tags in, masks and trained models out.

    Run the pipeline with `weakmask run` or `dvc repro`, variants with
    `dvc exp run -S section.name=value`.
    """


SCORES = (
    ("cams", "best_miou"),
    ("cams", "miou"),
    ("seeds", "miou"),
    ("walk", "best_miou"),
    ("labels", "miou"),
    ("predictions", "miou"),
)
"""The rows of `weakmask scores`: step and score."""


@main.command()
def scores() -> None:
    """Print the scores of all steps and the path of the report."""
    from pipeline.views.report import percent
    from pipeline.views.report_data import COMPARED, SPLITS
    from stages._command import DATA, artifact

    rows = [("step", "split", "mIoU", "instance AP50")]
    files = {name: artifact(f"scores/{name}", ".json") for name, _ in SCORES}
    found = {name: _scores_of(path, name) for name, path in files.items() if path.is_file()}
    if not found:
        raise UserError(f"{DATA / 'scores'}: there are no scores yet; make them with `dvc repro`")
    if not any(found.values()):
        raise UserError(
            f"{DATA / 'scores'}: no image has a ground-truth mask, so nothing is scored; look at "
            "the results with `weakmask browse`"
        )
    for name, key in SCORES:
        values = found.get(name, {})
        note = f"  of {percent(values['coverage'])} % of the pixels" if "coverage" in values else ""
        if key == "miou" and "miou_low" in values:
            note = f" ({percent(values['miou_low'])} to {percent(values['miou_high'])}){note}"
        ap50 = percent(values.get("AP50")) if name in ("labels", "predictions") else ""
        rows.append((f"{name}{COMPARED[key]}", SPLITS[name], percent(values.get(key)) + note, ap50))
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    for row in rows:
        click.echo(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    if any("miou_low" in values for values in found.values()):
        click.echo("in brackets: 95 % confidence intervals, as these are scores of a trial set")
    report = DATA / "report" / "index.html"
    click.echo(f"report: {report}" if report.is_file() else "report: none yet, run `dvc repro`")


def _scores_of(path: Path, name: str) -> Mapping[str, float]:
    """Return the scores of a step, which stage scores wrote in percent, as ratios."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))[name]
        return {key: float(value) / 100 for key, value in values.items() if value is not None}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path}: damaged ({error}); recreate it with `dvc repro -f scores@{name}`"
        ) from error


if __name__ == "__main__":
    main()
