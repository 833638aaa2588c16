"""weakmask init and weakmask check: what to know about a folder of images before any training.

Presets for images of one's own are fitted to the folder: the fraction of held-out images and the
lengths of the trainings.
"""

import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import yaml

from pipeline.core.resume import write_atomically
from pipeline.data.images import Problem, summarize, warning
from pipeline.errors import UserError, count
from pipeline.params import Parameters, parse, presets
from pipeline.params.data import Dataset
from pipeline.params.lengths import LEAST_STEPS, epochs_of, find_short
from pipeline.readers.layout import layout_of, read_source, recognize
from pipeline.readers.validation import Survey, is_held_out
from pipeline.readers.validation import check as check_source
from stages._command import PARAMETERS, read_parameters
from stages.cli.estimate import expected_seconds
from stages.cli.run import SECONDS
from stages.experiments.dvc_cache import is_tracked

VAL_IMAGES = 20
"""Images held out of a small source, unless that is more than a fifth of it."""


def expand(context: click.Context, option: click.Parameter, text: str | None) -> Path | None:
    """Expand `~` in a path, which the shell does not do within quotes (click callback)."""
    return None if text is None else Path(text).expanduser()


@click.command()
@click.option(
    "--preset",
    help="Parameters to start from: folder (images of your own), folder-gpu (the same with larger "
    "networks), inspection (tiny objects), scenes (the built-in ones), voc12, coco14, "
    "voc12-seenet, voc12-puzzlecam, voc12-s2c. The default is folder-gpu where there is a GPU, "
    "else folder.",
)
@click.option("--source", callback=expand, help="Folder of the images.")
@click.option(
    "-o", "--output", default=PARAMETERS, show_default=True, type=click.Path(path_type=Path)
)
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@click.option("--no-time", is_flag=True, help="Do not measure how long a run will take.")
def init(preset: str | None, source: Path | None, output: Path, force: bool, no_time: bool) -> None:
    """Write params.yaml from a preset for your own images."""
    name = preset or _default_preset()
    values = presets.load(name)
    if output.exists() and not force:
        raise UserError(f"{output}: exists; add --force to replace it")
    if not output.parent.is_dir():
        raise UserError(f"-o {output}: {output.parent} is not a folder; create it first")
    if source is None and name != "scenes":
        raise UserError(f"--source: preset {name} needs the folder of your images")
    changes = {} if source is None else {"dataset": _section(source, values["dataset"])}
    text = presets.replace(presets.text(name), changes)
    if source is None or values["dataset"]["format"] != "folder":
        write_atomically(output, text.encode())
        # a published preset keeps its lengths
        checks = "" if source is None else f"weakmask check {shlex.quote(str(source))}, then "
        click.echo(f"wrote {output}; next: {checks}weakmask run")
        return
    parameters = parse(yaml.safe_load(text))
    val = _val_share(parameters)
    survey = _survey(parameters.dataset, val)
    errors = _report(source, survey)
    changes = {"dataset": {"val": val}} | _lengths(parameters, survey)
    text = presets.replace(text, changes)
    write_atomically(output, text.encode())
    click.echo(_explain(name, parameters, changes))
    click.echo(f"wrote {output}; next: {'correct the errors, then ' * bool(errors)}weakmask run")
    if not errors and not no_time:
        _print_time(parse(yaml.safe_load(text)), survey)


def _default_preset() -> str:
    import torch

    return "folder-gpu" if torch.cuda.is_available() else "folder"


def _section(source: Path, preset: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a source changes in section `dataset`; raise UserError.

    The preset's files are kept if the source has them, such as the list train_aug of voc12.
    """
    if not source.is_dir():
        raise UserError(f"--source: {source} is not a folder")
    if Path.cwd().is_relative_to(source.resolve()):
        raise UserError(
            f"--source: {source} contains this project; put the images into a folder of their own, "
            "such as photos/"
        )
    layout = recognize(source)
    click.echo(f"{source}: {layout.title}")
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
    return section | {"source": str(source if inside else source.resolve())}


def _val_share(parameters: Parameters) -> float:
    """Return the fraction of images to hold out: more than the preset's for a small source
    without splits.
    """
    section = parameters.dataset
    lists, annotations = section.voc.lists(), section.coco.annotations()
    source = Path(section.source)
    found = read_source(source, layout_of(section.format, source, lists, annotations))
    share, ids = section.val, [entry.id for entry in found.entries]
    if any(entry.split for entry in found.entries):
        return share
    wanted = min(VAL_IMAGES, len(ids) // 5)
    while sum(is_held_out(name, share) for name in ids) < wanted:
        share = round(share + 0.01, 2)
    return share


def _survey(section: Dataset, val: float) -> Survey:
    """Check the source that a section names."""
    return check_source(
        section.format,
        Path(section.source),
        classes=section.classes,
        val=val,
        untagged=section.untagged,
        lists=section.voc.lists(),
        annotations=section.coco.annotations(),
    )


def _lengths(parameters: Parameters, survey: Survey) -> dict[str, Any]:
    """Return the epochs that the trainings need on few images, by section."""
    images = survey.count_split("train")
    needed = {stage: epochs_of(parameters, stage, images) for stage in LEAST_STEPS}
    return {
        stage: {"epochs": epochs}
        for stage, epochs in needed.items()
        if epochs > getattr(parameters, stage).epochs
    }


def _explain(name: str, parameters: Parameters, changes: Mapping[str, Any]) -> str:
    """Describe what was chosen for the images, and why."""
    classifier, val = parameters.classifier, changes["dataset"]["val"]
    lines = [
        f"preset {name}: method {classifier.method}"
        + ", the best on photographs without further weights" * (classifier.method == "s2c")
        + f"; network {classifier.backbone.name}, which "
        + ("needs a GPU" if name.endswith("gpu") else "trains on a CPU"),
    ]
    if val != parameters.dataset.val:
        lines.append(f"dataset.val: {val}, to have enough images to score")
    lines += [
        f"{stage}.epochs: {section['epochs']}, for {LEAST_STEPS[stage]} training steps"
        for stage, section in changes.items()
        if stage in LEAST_STEPS
    ]
    return "\n".join(lines)


def _print_time(parameters: Parameters, survey: Survey) -> None:
    """Measure each stage on a few images and print how long a run takes; `weakmask run` uses it."""
    click.echo("measuring how long it will take; Ctrl-C skips that")
    try:
        seconds = expected_seconds(parameters, survey)
    except KeyboardInterrupt:
        return
    if not seconds:
        click.echo("unknown, as a stage fails on a few images; `weakmask run` will say why")
        return
    write_atomically(SECONDS, json.dumps(seconds, indent=1).encode())
    longest = sorted(seconds, key=seconds.__getitem__)[:-4:-1]
    parts = ", ".join(f"{stage} {_minutes(seconds[stage])}" for stage in longest)
    click.echo(f"about {_minutes(sum(seconds.values()))} on this machine: {parts}")


def _minutes(seconds: float) -> str:
    return count(max(1, round(seconds / 60)), "minute")


@click.command()
@click.argument("source", required=False, callback=expand)
@click.option(
    "--format",
    "format_",
    default="auto",
    show_default=True,
    type=click.Choice(("auto", "folder", "classes", "voc", "coco", "yolo", "roboflow")),
    help="Layout of the folder; auto is that of params.yaml for its own source, else a guess.",
)
@click.option("--all", "every", is_flag=True, help="List every problem, not just three of a kind.")
def check(source: Path | None, format_: str, every: bool) -> None:
    """Report all problems of a SOURCE folder, and its classes.

    SOURCE defaults to that of params.yaml. The exit status is 1 if there are errors, at which the
    stage dataset would stop; warnings do not count.
    """
    title, survey = "", None
    if source is None or (format_ == "auto" and PARAMETERS.is_file()):
        parameters = read_parameters()
        section = parameters.dataset
        if source is None and section.format == "scenes":
            raise UserError(f"{PARAMETERS}: scenes need no check; name the folder of your images")
        if source is None or source.resolve() == Path(section.source).resolve():
            source, survey = Path(section.source), _survey(section, section.val)
            survey = replace(survey, problems=(*survey.problems, *_short(parameters, survey)))
            title = f", as {PARAMETERS} says"
    if survey is None:
        assert source is not None
        survey = check_source(format_, source)
    click.echo(f"{source}: {survey.title}{title}")
    sys.exit(1 if _report(source, survey, every=every) else 0)


def _short(parameters: Parameters, survey: Survey) -> list[Problem]:
    """Return a warning for each training that is too short for the images of a source."""
    images = survey.count_split("train")
    found = [find_short(parameters, stage, images) for stage in LEAST_STEPS if images]
    return [warning(PARAMETERS, *problem) for problem in found if problem is not None]


def _report(source: Path, survey: Survey, *, every: bool = False) -> int:
    """Print what was found in a source; return the number of errors."""
    for level, line in summarize(survey.problems, every=every):
        click.echo(f"{level}: {line}")
    click.echo(f"{source}: {survey}")
    counts = ", ".join(f"{name} {images}" for name, images in survey.count_classes().items())
    click.echo(f"classes and their images: {counts or 'none'}")
    warnings = len(survey.problems) - survey.errors
    click.echo(f"{source}: {count(survey.errors, 'error')}, {count(warnings, 'warning')}")
    return survey.errors
