"""Describe and draw what the pipeline writes: artifacts, weights, tables, scores, unfinished work.

A description is a list of lines; those that begin with `odd:` name what looks wrong.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from torch import Tensor

from pipeline.core.artifacts import ArtifactError, Reader, Record
from pipeline.core.weights import WeightsError, load_checkpoint, read_header, read_weights
from pipeline.data.grid import upsample
from pipeline.data.index import HEADER, Index
from pipeline.errors import UserError
from pipeline.views import overlays, sheets
from pipeline.views.artifact_stats import count, describe_artifact, listed
from pipeline.views.charts import number
from pipeline.views.gallery import arrays_of, truth_of
from pipeline.views.report import percent
from pipeline.views.report_data import FILE, TITLES, load, read_rows

CHECKPOINT = "checkpoint.pt"


def describe(path: Path) -> list[str]:
    """Describe what is at `path`; raises UserError if it is missing or unknown."""
    if path.is_dir():
        return _describe_folder(path)
    if path.name.endswith(".part") and path.is_file():
        return [f"{path.name}: being written, {file_size(path)} so far; not readable yet"]
    if not path.is_file():
        parts = sorted(path.parent.glob(f"{path.name}*.part"))
        written = f"; it is being written ({file_size(parts[0])} so far)" if parts else ""
        raise UserError(f"{path}: no such file or folder{written or '; `dvc repro` makes it'}")
    if path.suffix not in DESCRIBERS:
        raise UserError(f"{path}: unknown kind of file; known are {', '.join(DESCRIBERS)}")
    return DESCRIBERS[path.suffix](path)


def _describe_folder(path: Path) -> list[str]:
    if (path / HEADER).is_file():
        return describe_index(Index.load(path))
    if folders := unfinished_folders(path):
        return [line for folder in folders for line in describe_unfinished(folder)]
    lines = [line for entry in sorted(path.iterdir()) for line in _brief(entry)]
    if not lines:
        raise UserError(f"{path}: no artifacts here; `dvc repro` makes them in the folder data")
    return lines


def _brief(path: Path) -> list[str]:
    """Describe an entry of a folder in a line, without reading its images; skip foreign files."""
    try:
        if path.is_dir():
            if (path / HEADER).is_file():
                return [f"{path.name}/: {describe(path)[0]}"]
            files = [one.name for one in sorted(path.iterdir()) if one.suffix in DESCRIBERS]
            return [f"{path.name}/: {', '.join(files)}"] if files else []
        if path.suffix == ".h5":
            reader = Reader(path)
            reader.close()
            skipped = f", {len(reader.skipped)} skipped as they failed" if reader.skipped else ""
            images = f"{count(len(reader), 'image')}{skipped}, {file_size(path)}"
            return [f"{path.name}: {reader.format} of {images}"]
        if path.suffix == ".safetensors":
            header = read_header(path)
            kind = f"{header['kind']} {header.get('method', '')}".rstrip()
            return [f"{path.name}: {kind}, {file_size(path)}"]
        return describe(path)[:1] if path.suffix in (*DESCRIBERS, ".part") else []
    except UserError as error:
        return [str(error)]


def look_up(path: Path, name: str, dataset: Path) -> np.ndarray | list[str]:
    """Return one image of an artifact or dataset as a sheet uint8 RGB, or its rows in tables.

    dataset: folder of the images to draw on. Raises UserError if there is no such image.
    """
    if path.is_dir() and (path / HEADER).is_file():
        index = Index.load(path)
        return draw_image(index, _known(index, path, name))
    if path.suffix == ".h5" and path.is_file():
        reader = Reader(path)
        record = reader[_known(reader, path, name)]
        image = Index.load(dataset).image(_known(Index.load(dataset), dataset, name))
        return draw(reader.format, record, image, reader.classes)
    files = sorted(path.rglob("*.csv")) if path.is_dir() else [path]
    rows = [
        (file, row)
        for file in files
        if file.suffix == ".csv" and file.is_file()
        for row in read_rows(file)
    ]
    ids = dict.fromkeys(row["id"] for _, row in rows if "id" in row)
    if not ids:
        describe(path)
        raise UserError(f"{path}: not stored per image, so omit {name!r}")
    _known(ids, path, name)
    return [
        f"{file.parent.name}/{file.stem}: "
        + ", ".join(f"{key} {value or '-'}" for key, value in row.items() if key != "id")
        for file, row in rows
        if row.get("id") == name
    ]


def _known(names: Iterable[str], path: Path, name: str) -> str:
    """Return the name if it is known; raises UserError that lists similar ones."""
    names = list(names)
    if name in names:
        return name
    similar = similar_ids(names, name)
    hint = f"similar ids: {listed(similar)}" if similar else f"it has {', '.join(names[:3])} ..."
    raise UserError(f"{path}: no image {name!r}; {hint if names else 'it has no images'}")


def similar_ids(names: Sequence[str], wanted: str, number: int = 6) -> list[str]:
    """Return the ids most like an unknown one: those that contain it, then those spelled alike."""
    inside = [name for name in names if wanted and (wanted in name or name in wanted)]
    # comparing letter by letter is slow: only ids of about its length that share most characters
    close = [name for name in names if abs(len(name) - len(wanted)) <= 4]
    close.sort(key=lambda name: -len(set(wanted) & set(name)))
    alike = get_close_matches(wanted, close[:2000], number, 0.5)
    return list(dict.fromkeys([*inside[:number], *alike]))[:number]


def describe_index(index: Index) -> list[str]:
    """Describe a dataset: images by split, masks, and images by class."""
    splits = Counter(image.split for image in index.values())
    tags = Counter(tag for image in index.values() for tag in image.tags)
    masks = sum(index.has_masks(name) for name in index)
    instances = sum(index.has_instances(name) for name in index)
    counts = ", ".join(f"{n} {split}" for split, n in sorted(splits.items()))
    untagged = [name for name, image in index.items() if not image.tags]
    return [
        f"dataset: {len(index)} images, {counts}",
        f"masks: {masks} semantic, {instances} with instances",
        *(f"  {name}: {tags[number]} images" for number, name in enumerate(index.classes)),
        f"odd: no tags in {count(len(untagged), 'image')}: {listed(untagged)}"
        if untagged
        else "nothing odd",
    ]


def describe_weights(path: Path) -> list[str]:
    """Describe a weights file: its header, and the number of tensors and values."""
    tensors, header = read_weights(path)
    header = dict(header)
    lines = [f"{header.pop('kind')}: {_tensor_count(tensors)}"]
    return [*lines, *(f"  {key}: {value}" for key, value in header.items()), *_not_finite(tensors)]


def describe_checkpoint(path: Path) -> list[str]:
    """Describe a training's checkpoint: its step, first and last loss; also while it trains.

    Raises UserError if it cannot be read.
    """
    try:
        state = load_checkpoint(path)
        step, rows = state["step"], state["curve"]["rows"]
        tensors = {k: value for k, value in state["network"].items() if isinstance(value, Tensor)}
        losses = [
            f"{float(row['loss']):.4g} at step {row['step']}" for row in (*rows[:1], *rows[-1:])
        ]
    except WeightsError as error:
        raise UserError(f"{error}; delete it to start over") from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(f"{path}: not a checkpoint ({error}); delete it to start over") from error
    lines = [f"checkpoint: {step} steps done, {_tensor_count(tensors)}"]
    lines += [f"loss: {', '.join(losses)}"] if losses else []
    return [*lines, *_not_finite(tensors)]


def _tensor_count(tensors: Mapping[str, Tensor]) -> str:
    values = sum(tensor.numel() for tensor in tensors.values())
    return f"{count(len(tensors), 'tensor')}, {values / 1e6:.2f} million values"


def _not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    floats = {name: one for name, one in tensors.items() if one.is_floating_point()}
    odd = [name for name, tensor in floats.items() if not tensor.isfinite().all()]
    return [f"odd: not finite: {listed(odd)}" if odd else "nothing odd"]


def describe_scores(path: Path) -> list[str]:
    """Describe the few scores of a step; raises UserError if it holds none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        steps = {step: dict(values) for step, values in content.items()}
    except (ValueError, TypeError, AttributeError) as error:
        remake = "make it again with `dvc repro -f scores`"
        raise UserError(f"{path}: no scores of this version; {remake}") from error
    none = "none, as no image has a ground-truth mask"
    return [
        f"scores of {step}: " + (", ".join(f"{name} {n}" for name, n in values.items()) or none)
        for step, values in steps.items()
    ]


def describe_table(path: Path) -> list[str]:
    """Describe a CSV file: rows, ranges of its columns, and values that are not finite."""
    rows = read_rows(path)
    if not rows:
        return [f"{path.stem}: no rows", "odd: no rows"]
    lines, odd = [f"{path.stem}: {count(len(rows), 'row')}, columns {', '.join(rows[0])}"], []
    for name in (column for column in rows[0] if column != "id"):
        texts = [row[name] for row in rows if row[name]]
        values = [value for value in map(number, texts) if value is not None]
        if values:
            empty = f", {len(rows) - len(texts)} empty" if len(texts) < len(rows) else ""
            lines.append(f"{name}: {min(values):.4g} to {max(values):.4g}{empty}")
            if broken := len(texts) - len(values):
                odd.append(f"odd: {name} is not a finite number in {count(broken, 'row')}")
    return [*lines, *(odd or ["nothing odd"])]


def describe_report(path: Path) -> list[str]:
    """Describe report.json: mIoU per step; raises UserError if damaged or of another version."""
    steps = load(path).steps
    return [
        f"report: {count(len(steps), 'scored step')}",
        *(f"{TITLES[one.step].lower()}: mIoU {percent(one.miou)}" for one in steps),
    ]


def describe_unfinished(folder: Path) -> list[str]:
    """Describe one folder STAGE/FINGERPRINT: what is done, what is being written, what is odd."""
    fingerprint = folder.name.partition("-")[0]
    lines = [f"unfinished work of stage {folder.parent.name}, fingerprint {fingerprint}"]
    try:
        if (folder / CHECKPOINT).is_file():
            lines += describe_checkpoint(folder / CHECKPOINT)
        done: list[int] = []
        skipped: list[str] = []
        broken: list[str] = []
        for path in sorted(folder.glob("shard-*.h5")):
            try:
                shard = Reader(path)
            except ArtifactError:
                broken.append(path.name)
                continue
            shard.close()
            done.append(len(shard))
            skipped += shard.skipped
        if done:
            lines.append(f"done: {count(sum(done), 'image')} in {count(len(done), 'shard')}")
        lines += [f"skipped, as they failed: {listed(sorted(skipped))}"] if skipped else []
        lines += [f"odd: damaged, will be made again: {listed(broken)}"] if broken else []
        for part in sorted(folder.glob("*.part")):
            lines.append(f"being written: {part.name}, {file_size(part)} so far")
    except FileNotFoundError:
        lines.append("removed meanwhile: the stage has finished")
    return lines


def unfinished_folders(root: Path) -> list[Path]:
    """Return the folders of unfinished work at, in, or two levels below `root`."""
    folders = [root, *sorted(root.glob("*/")), *sorted(root.glob("*/*/"))]
    return [
        path for path in folders if (path / CHECKPOINT).is_file() or any(path.glob("shard-*.h5*"))
    ]


def file_size(path: Path) -> str:
    """Return the size of a file in a readable unit."""
    size = path.stat().st_size
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


def draw(
    format_: str, record: Record, image: np.ndarray, classes: Sequence[str], side: int = 360
) -> np.ndarray:
    """Draw everything that an artifact holds of an image, as a sheet uint8 RGB.

    image: uint8 [H,W,3]; side: longer side of a panel in pixels. Maps after the walk are divided by
    the highest of all, which their title names.
    """
    drawn = sheets.panels(image, {}, side)
    if format_ in ("cams", "walk"):
        maps, labels = (
            (record["cams"], record["labels"])
            if format_ == "cams"
            else (record["maps"], record["classes"])
        )
        top = max(float(np.nan_to_num(maps).max(initial=0)), 1e-6) if format_ == "walk" else 1.0
        for number, label in enumerate(labels.tolist()[: len(maps)]):
            name = classes[label] if label < len(classes) else f"unknown class {label}"
            peak = np.nan_to_num(maps[number]).max(initial=0)
            full = upsample(np.nan_to_num(maps[number])[None] / top, image.shape[:2])
            title = f"{name}, up to {peak:.2f}"
            title = f"{title} ({number + 1})" if title in drawn else title
            drawn[title] = sheets.panels(image, {"CAM": full}, side)["CAM"]
    else:
        drawn |= sheets.panels(image, arrays_of(format_, record, "class"), side)
    if format_ == "fields":
        reach = overlays.reach(np.nan_to_num(record["displacement"]))
        drawn[f"displacement, rim of the wheel {reach:.1f} cells"] = drawn.pop("displacement")
    found = [record[key] for key in ("seeds", "semantic") if key in record]
    return _sheet(drawn, "", sheets.legend(found, classes))


def draw_image(index: Index, name: str, side: int = 360) -> np.ndarray:
    """Draw an image with its ground truth, if any, as a sheet uint8 RGB."""
    tags = np.array(index[name].tags, np.uint8) + np.uint8(1)
    drawn = sheets.panels(index.image(name), truth_of(index, name), side)
    return _sheet(drawn, f"{name}, {index[name].split}", sheets.legend([tags], index.classes))


def _sheet(drawn: Mapping[str, np.ndarray], caption: str, keys: Sequence[sheets.Key]) -> np.ndarray:
    """Arrange captioned panels in rows of at most four."""
    captioned = [sheets.captioned(panel, title) for title, panel in drawn.items()]
    across = 4 if len(captioned) != 5 else 3
    rows = [captioned[i : i + across] for i in range(0, len(captioned), across)]
    others = len(rows) - 1
    return sheets.sheet(rows, [caption, *[""] * others], keys=[keys, *[()] * others])


def _describe_json(path: Path) -> list[str]:
    if path.name == HEADER:
        return describe_index(Index.load(path.parent))
    return describe_report(path) if path.name == FILE else describe_scores(path)


DESCRIBERS: Mapping[str, Callable[[Path], list[str]]] = {
    ".h5": lambda path: describe_artifact(Reader(path)),
    ".safetensors": describe_weights,
    ".pt": describe_checkpoint,
    ".csv": describe_table,
    ".json": _describe_json,
}
