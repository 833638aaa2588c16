"""The weakmask command: what DVC does not do (write parameters, check a source, inspect, export).

weakmask fetch voc12 --to ~/voc
weakmask init --preset folder --source ~/images
weakmask check ~/images
weakmask run
weakmask inspect data/cams.h5 2007_000504 -o sheet.png
weakmask browse --rev one-scale
weakmask export labels --format voc -o exported
weakmask report-diff HEAD data/report
weakmask predict data/semantic.safetensors photos/ -o out
weakmask export-onnx data/semantic.safetensors -o semantic.onnx
weakmask import res50_cam.pth --from irn-cam -o data/classifier.safetensors
"""

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from pipeline.errors import UserError, count

COMMANDS = {
    "fetch": "Download a published data set for the preset of the same name.",
    "init": "Write params.yaml from a preset for your own images.",
    "check": "Report every problem of a SOURCE folder at once, and its classes.",
    "run": "Run what changed of the pipeline, or of TARGETS and what they need (`dvc repro`).",
    "scores": "Print the scores of all steps and the path of the report.",
    "inspect": "Describe an ARTIFACT and what is odd in it, or draw one image of it.",
    "browse": "Browse all artifacts in a local web page.",
    "report-diff": "Compare report A with report B (default: data/report) in a page, and print the "
    "scores.",
    "compare": "Print the scores of finished DVC experiments, averaged over their seeds.",
    "predict": "Segment new images with a final model.",
    "export": "Export masks as VOC, COCO or YOLO.",
    "export-onnx": "Write a final model as ONNX.",
    "import": "Convert weights that a method's authors published.",
}
"""What `weakmask --help` says, in the order of use, without loading the commands."""


def expand(context: click.Context, option: click.Parameter, text: str | None) -> Path | None:
    """Return a path with `~` expanded, which the shell leaves in quotes, a click callback."""
    return None if text is None else Path(text).expanduser()


class Commands(click.Group):
    """A group that loads a command from the module of its name, and reports a UserError in one
    line.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; those that are not in this file are loaded."""
        if cmd_name in self.commands or cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        return _load(cmd_name)

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


def _load(name: str) -> click.Command:
    """Return a command of another file, which is loaded now: --help is quick that way."""
    match name:
        case "fetch":
            from stages.cli.fetch import fetch as command
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
        case "export":
            from stages.cli.export import export as command
        case "export-onnx":
            from stages.cli.export_onnx import export_onnx as command
        case "import":
            from stages.cli.import_weights import import_weights as command
        case _:
            raise ValueError(f"no command is called {name!r}")
    return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="weakmask", message="%(package)s %(version)s")
def main() -> None:
    """Weakly supervised segmentation: images and their tags in, masks and trained models out.

    Run the pipeline with `weakmask run` or `dvc repro`, variants with
    `dvc exp run -S section.name=value`.
    """


@main.command()
@click.option(
    "--preset",
    default="folder",
    show_default=True,
    help="Parameters to start from: folder (images of your own), scenes (the built-in ones), "
    "voc12, coco14, voc12-seenet, voc12-puzzlecam, voc12-s2c.",
)
@click.option("--source", callback=expand, help="Folder of the images.")
@click.option(
    "-o", "--output", default="params.yaml", show_default=True, type=click.Path(path_type=Path)
)
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def init(preset: str, source: Path | None, output: Path, force: bool) -> None:
    """Write params.yaml from a preset for your own images."""
    from pipeline.core.resume import write_atomically
    from pipeline.params import presets

    text = presets.text(preset)
    if output.exists() and not force:
        raise UserError(f"{output}: exists; add --force to replace it")
    if not output.parent.is_dir():
        raise UserError(f"-o {output}: {output.parent} is not a folder; create it first")
    if source is None and preset != "scenes":
        raise UserError(f"--source: preset {preset} needs the folder of your images")
    next_steps = "dvc repro"
    if source is not None:
        section, title = _describe(source, presets.load(preset)["dataset"])
        text = presets.replace(text, {"dataset": section})
        click.echo(f"{source}: {title}")
        next_steps = f"weakmask check {shlex.quote(section['source'])}, then dvc repro"
    write_atomically(output, text.encode())
    click.echo(f"wrote {output}; next: {next_steps}")


def _describe(source: Path, preset: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return section `dataset` for a source and what the source is; raise UserError.

    The preset's files are kept if the source has them, such as the list train_aug of voc12.
    """
    from pipeline.readers.layout import recognize
    from stages.experiments.dvc_cache import is_tracked

    if not source.is_dir():
        raise UserError(f"--source: {source} is not a folder")
    if Path.cwd().is_relative_to(source.resolve()):
        raise UserError(
            f"--source: {source} contains this project; put the images into a folder of their own, "
            "such as photos/"
        )
    layout = recognize(source)
    section = layout.parameters()
    named = {
        "voc": [f"ImageSets/Segmentation/{name}.txt" for name in preset["voc"].values()],
        "coco": list(preset["coco"].values()),
    }.get(layout.format, [])
    if preset["format"] == layout.format and all((source / file).exists() for file in named):
        section = {"format": layout.format}
    # A relative path holds in DVC's temporary copies of the repository, but only if Git or DVC
    # tracks what is there.
    inside = source.resolve().is_relative_to(Path.cwd()) and is_tracked(source)
    return section | {"source": str(source if inside else source.resolve())}, layout.title


@main.command()
@click.argument("source", required=False, callback=expand)
@click.option(
    "--format",
    "format_",
    default="auto",
    show_default=True,
    type=click.Choice(("auto", "folder", "classes", "voc", "coco", "yolo")),
    help="Layout of the folder; auto is that of params.yaml for its own source, else a guess.",
)
@click.option("--all", "every", is_flag=True, help="List every problem, not three of a kind.")
def check(source: Path | None, format_: str, every: bool) -> None:
    """Report every problem of a SOURCE folder at once, and its classes.

    SOURCE is that of params.yaml by default. The exit status is 1 if there are errors, at which the
    stage dataset stops; warnings do not count.
    """
    from pipeline.data.images import summarize
    from pipeline.readers.validation import check as check_source
    from stages._command import read_parameters

    options: dict[str, Any] = {}
    parameters = Path("params.yaml")
    if source is None or (format_ == "auto" and parameters.is_file()):
        section = read_parameters(parameters).dataset
        if source is None and section.format == "scenes":
            raise UserError(f"{parameters}: scenes need no check; name the folder of your images")
        if source is None or source.resolve() == Path(section.source).resolve():
            source, format_ = Path(section.source), section.format
            options = {"classes": section.classes, "val": section.val}
            options |= {"lists": section.voc.lists(), "annotations": section.coco.annotations()}
    survey = check_source(format_, source, **options)
    click.echo(f"{source}: {survey.title}{f', as {parameters} says' if options else ''}")
    for level, line in summarize(survey.problems, every=every):
        click.echo(f"{level}: {line}")
    click.echo(f"{source}: {survey}")
    counts = ", ".join(f"{name} {images}" for name, images in survey.count_classes().items())
    click.echo(f"classes and their images: {counts or 'none'}")
    warnings = len(survey.problems) - survey.errors
    click.echo(f"{source}: {count(survey.errors, 'error')}, {count(warnings, 'warning')}")
    sys.exit(1 if survey.errors else 0)


SCORES = (
    ("cams", "best_miou", "train", "cams, best threshold"),
    ("cams", "miou", "train", "cams"),
    ("seeds", "miou", "train", "seeds"),
    ("walk", "best_miou", "train", "walk, best threshold"),
    ("labels", "miou", "train", "labels"),
    ("predictions", "miou", "val", "predictions"),
)
"""The rows of `weakmask scores`: step, score, split and title."""


@main.command()
def scores() -> None:
    """Print the scores of all steps and the path of the report."""
    from pipeline.views.report import percent
    from stages._command import DATA, artifact

    rows = [("step", "split", "mIoU", "instance AP50")]
    files = {name: artifact(f"scores/{name}", ".json") for name, *_ in SCORES}
    found = {name: _scores_of(path, name) for name, path in files.items() if path.is_file()}
    if not found:
        raise UserError(f"{DATA / 'scores'}: there are no scores yet; make them with `dvc repro`")
    if not any(found.values()):
        raise UserError(
            f"{DATA / 'scores'}: no image has a ground-truth mask, so nothing is scored; look at "
            "the results with `weakmask browse`"
        )
    for name, key, split, title in SCORES:
        values = found.get(name, {})
        note = f"  of {percent(values['coverage'])} % of the pixels" if "coverage" in values else ""
        ap50 = percent(values.get("AP50")) if name in ("labels", "predictions") else ""
        rows.append((title, split, percent(values.get(key)) + note, ap50))
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    for row in rows:
        click.echo(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
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
