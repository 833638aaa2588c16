"""Images of a run: everything that artifacts and tables hold of one, and those that a report shows
as examples, of each kind of failure and by score.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path

import cv2
import numpy as np

from pipeline.core.artifacts import IGNORE, Reader, Record
from pipeline.data.index import HEADER, Index
from pipeline.data.instance_masks import exclusive_record
from pipeline.data.masks import read_instances, read_semantic
from pipeline.errors import UserError
from pipeline.labelling import upsample
from pipeline.labelling.pseudo_labels import Normalize, class_maps
from pipeline.views import overlays, sheets
from pipeline.views.report_data import KINDS, TITLES, ReportData, Table, read_rows

Arrays = Mapping[str, np.ndarray]
RANKED = {
    "labels": ("image", "cams", "seeds", "boundary", "walk", "labels", "instances"),
    "predictions": ("image", "predictions", "predicted instances"),
}
"""Steps whose images are ranked by score and shown on sheets -> their panels."""
TRUTH = ("ground truth", "ground-truth instances")
WORST = 0.1
"""Share of the images that count as the worst of a step."""
ROWS_PER_SHEET = 4
SIDE = 360
"""Longer side of the panels of a single image in pixels."""
ARRAYS = {
    "segments": {"segments": "segments"},
    "hints": {"pixels": "hints", "evidence": "evidence"},
    "seeds": {"seeds": "seeds"},
    "fields": {"boundary": "boundary", "displacement": "displacement"},
    "labels": {"semantic": "labels", "instances": "instances"},
    "predictions": {"semantic": "predictions", "instances": "predicted instances"},
}
"""Artifact -> array -> title of its panel; class maps are derived from several arrays."""


def arrays_of(format_: str, record: Record, normalize: Normalize) -> Arrays:
    """Return what can be drawn of an artifact's record, by the titles of sheets.COLUMNS.

    Class maps have the image's size and, after the walk, are normalized as they are scored.
    """
    if format_ == "cams":
        height, width = map(int, record["size"])
        return {"cams": upsample(record["cams"], (height, width))}
    if format_ == "walk":
        return {"walk": class_maps(record, normalize)[0]}
    if format_ == "features":
        return {"features": principal_components(record["features"], int(record["stride"][0]))}
    record = exclusive_record(record)
    return {title: record[key] for key, title in ARRAYS[format_].items()}


def principal_components(features: np.ndarray, stride: int) -> np.ndarray:
    """Return the first three principal components of features [D,h,w] as red, green and blue, each
    from its lowest value to its highest: uint8 [stride h, stride w, 3].
    """
    cells = features.reshape(len(features), -1).T.astype(np.float32)
    cells -= cells.mean(0)
    axes = np.linalg.eigh(cells.T @ cells)[1][:, :-4:-1]
    shown = cells @ axes
    span = np.maximum(np.ptp(shown, 0), np.finfo(np.float32).tiny)
    colors = np.rint((shown - shown.min(0)) / span * 255).astype(np.uint8)
    grid = colors.reshape(*features.shape[1:], 3)
    return grid.repeat(stride, 0).repeat(stride, 1)


def truth_of(index: Index, name: str) -> Arrays:
    """Return the ground truth of an image as far as it has any, to look at, never to select by."""
    found = {}
    if index.has_masks(name):
        found["ground truth"] = read_semantic(index, name)
    if index.has_instances(name):
        found["ground-truth instances"] = read_instances(index, name)[0]
    return found


def look_up(path: Path, name: str, dataset: Path) -> np.ndarray | list[str]:
    """Return what an artifact or the dataset holds of an image as a sheet uint8 RGB, or its rows in
    tables.

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
    tables = sorted(path.rglob("*.csv")) if path.is_dir() else [path]
    files = [file for file in tables if file.suffix == ".csv" and file.is_file()]
    rows = [(file, row) for file in files for row in read_rows(file)]
    ids = dict.fromkeys(row["id"] for _, row in rows if "id" in row)
    if not ids:
        empty = "it scores no image: none of its split has a ground-truth mask"
        scores_images = any(file.stem == "images" for file in files)
        what = empty if scores_images else f"not stored per image, so omit {name!r}"
        raise UserError(f"{path}: {what if path.exists() else 'no such file'}")
    _known(ids, path, name)
    return [
        f"{file.parent.name}/{file.stem}: "
        + ", ".join(f"{key} {_shown(key, value)}" for key, value in row.items() if key != "id")
        for file, row in sorted(rows, key=lambda entry: _place(entry[0].parent.name))
        if row.get("id") == name
    ]


def _shown(column: str, value: str) -> str:
    """Return a table's value, ratios in percent."""
    ratio = value and column in ("miou", "foreground_iou", "coverage")
    return f"{100 * float(value):.1f}" if ratio else value or "-"


def _place(step: str) -> int:
    """Return the place of a step in the pipeline; other folders come last."""
    return [*TITLES, step].index(step)


def _known(names: Iterable[str], path: Path, name: str) -> str:
    """Return the name if it is known; raises UserError that lists similar ones."""
    names = list(names)
    if name in names:
        return name
    similar = similar_ids(names, name)
    hint = f"similar ids: {', '.join(similar)}" if similar else f"it has {', '.join(names[:3])} ..."
    raise UserError(f"{path}: no image {name!r}; {hint if names else 'it has no images'}")


def similar_ids(names: Sequence[str], wanted: str) -> list[str]:
    """Return at most six ids like an unknown one: those that contain it, then those alike."""
    inside = [name for name in names if wanted and (wanted in name or name in wanted)]
    alike = get_close_matches(wanted, names, 6, 0.5)
    return list(dict.fromkeys([*inside[:6], *alike]))[:6]


def draw(format_: str, record: Record, image: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Draw everything that an artifact holds of an image, as a sheet uint8 RGB.

    image: uint8 [H,W,3]. Maps after the walk are divided by the highest of all, which their title
    names.
    """
    drawn = sheets.panels(image, {}, SIDE)
    if format_ in ("cams", "walk"):
        walked = format_ == "walk"
        maps, labels = (
            record[key] for key in (("maps", "classes") if walked else ("cams", "labels"))
        )
        top = max(float(maps.max(initial=0)), 1e-6) if walked else 1.0
        for number, (cam, label) in enumerate(zip(maps, labels.tolist(), strict=True), start=1):
            name = classes[label] if label < len(classes) else f"unknown class {label}"
            title = f"{name}, up to {cam.max(initial=0):.2f}"
            title = f"{title} ({number})" if title in drawn else title
            full = upsample(cam[None] / top, image.shape[:2])
            drawn[title] = sheets.panels(image, {"cams": full}, SIDE)["cams"]
    else:
        drawn |= sheets.panels(image, arrays_of(format_, record, "class"), SIDE)
    if format_ == "fields":
        reach = overlays.reach(record["displacement"])
        drawn[f"displacement, rim of the wheel {reach:.1f} cells"] = drawn.pop("displacement")
    found = [record[key] for key in ("seeds", "semantic") if key in record]
    return _sheet(drawn, "", sheets.legend(found, classes))


def draw_image(index: Index, name: str) -> np.ndarray:
    """Draw an image with its ground truth, if any, as a sheet uint8 RGB."""
    tags = np.array(index[name].tags, np.uint8) + np.uint8(1)
    drawn = sheets.panels(index.image(name), truth_of(index, name), SIDE)
    return _sheet(drawn, f"{name}, {index[name].split}", sheets.legend([tags], index.classes))


def _sheet(drawn: Mapping[str, np.ndarray], caption: str, keys: Sequence[sheets.Key]) -> np.ndarray:
    """Arrange captioned panels in rows of at most four."""
    captioned = [sheets.captioned(panel, title) for title, panel in drawn.items()]
    across = 4 if len(captioned) != 5 else 3
    rows = [captioned[i : i + across] for i in range(0, len(captioned), across)]
    others = len(rows) - 1
    return sheets.sheet(rows, [caption, *[""] * others], keys=[keys, *[()] * others])


@dataclass(frozen=True, slots=True)
class Example:
    """One image of the report.

    panels: title -> uint8 [h,w,3]; scores: name -> ratio or None; keys: colored class names; note:
    what to say about it.
    """

    id: str
    panels: Mapping[str, np.ndarray]
    scores: Mapping[str, float | None] = field(default_factory=dict)
    keys: Sequence[sheets.Key] = ()
    note: str = ""

    def only(self, titles: Iterable[str]) -> "Example":
        """Return a copy with these panels only, as far as they exist."""
        return replace(self, panels={t: self.panels[t] for t in titles if t in self.panels})


@dataclass(frozen=True, slots=True)
class FailureExample:
    """A kind of failure in one step: how many there are, in how many images, out of how many
    objects, and the largest one.
    """

    kind: str
    count: int
    images: int
    out_of: int
    example: Example | None


@dataclass(frozen=True, slots=True)
class Found:
    """What the label maps of a step contain: class -> images tagged with it, images in which it was
    found, and its mean share of their pixels; images without any class, and images that lack a
    class of their tags.
    """

    classes: Mapping[str, tuple[int, int, float]]
    empty: Sequence[str]
    lacking: Sequence[str]


@dataclass(frozen=True, slots=True)
class ImageGallery:
    """All artifacts of a run, `readers` by format, and their images as examples.

    An artifact may lack an image. normalize: as in section `labels`; side: longer side of a panel
    in pixels.
    """

    index: Index
    readers: Mapping[str, Reader]
    normalize: Normalize
    side: int = 240

    def example(
        self, name: str, scores: Mapping[str, float | None] | None = None, note: str = ""
    ) -> Example:
        """Draw an image with every panel there is, ground truth included."""
        arrays = dict(truth_of(self.index, name))
        for format_, reader in self.readers.items():
            if name in reader:
                arrays |= arrays_of(format_, reader[name], self.normalize)
        labeled = ("seeds", "labels", "predictions", "ground truth")
        keys = sheets.legend([arrays[key] for key in labeled if key in arrays], self.index.classes)
        drawn = sheets.panels(self.index.image(name), arrays, self.side)
        return Example(name, drawn, scores or {}, keys, note)

    def step_panels(self, data: ReportData) -> dict[str, np.ndarray]:
        """Draw a panel per step, of the median image of each ranked step."""
        found: dict[str, np.ndarray] = {}
        for step in RANKED:
            names = ranked(data.images.get(step, {}), 1)["median"]
            found |= self.example(names[0]).panels if names else {}
        return {step: found[step] for step in TITLES if step in found}

    def failures(self, data: ReportData, step: str, places: Table) -> list[FailureExample]:
        """Return every kind of failure of a step, with the largest one drawn.

        places: the step's table `failure_places` (see metrics.steps).
        """
        return [
            FailureExample(kind, **numbers, example=self._largest(step, kind, places))
            for kind, numbers in data.failures[step].items()
            if kind in KINDS
        ]

    def _largest(self, step: str, kind: str, places: Table) -> Example | None:
        """Draw the image in which a failure covers most pixels, the first by id if several do."""
        own = [place for place in places if place["kind"] == kind]
        if not own:
            return None
        place = min(own, key=lambda row: (-int(row["pixels"]), row["id"]))
        by_instance = kind in ("merged", "split")
        array = "instances" if by_instance else "semantic"
        titles = ("image", ARRAYS[step][array], TRUTH[by_instance])
        example = self.example(place["id"], note=place["class"]).only(titles)
        image = self.index[place["id"]]
        box = tuple(int(place[edge]) for edge in ("top", "left", "bottom", "right"))
        marked = {
            title: boxed(panel, box, (image.height, image.width))
            for title, panel in example.panels.items()
        }
        return replace(example, panels=marked)

    def ranked(self, data: ReportData, step: str, worst: int) -> dict[str, list[Example]]:
        """Draw the worst, median and best images of a step, with their score at every step and the
        first step at which they were among the worst.
        """
        own = data.images.get(step, {})
        groups = ranked(own, worst).items()
        return {
            place: [self._ranked(data, step, name) for name in names] for place, names in groups
        }

    def _ranked(self, data: ReportData, step: str, name: str) -> Example:
        scores = {
            one: own for one, own in data.images.items() if own.keys() & data.images[step].keys()
        }
        bad = first_bad_step(name, scores) if len(scores) > 1 else None
        note = f"among the worst tenth since {bad}" if bad else ""
        by_step = {one: own.get(name) for one, own in scores.items()}
        return self.example(name, by_step, note).only((*RANKED[step], *TRUTH))

    def found(self, step: str) -> Found:
        """Return what the label maps of a step contain, compared with the tags."""
        tagged, shares = Counter[int](), defaultdict[int, list[float]](list)
        empty, lacking = [], []
        for name in (name for name in self.readers[step] if name in self.index):
            labels = self.readers[step].array(name, "semantic")
            counts = np.bincount(labels.ravel(), minlength=256)[1:IGNORE] / labels.size
            tags = self.index[name].tags
            tagged.update(tags)
            for c in np.flatnonzero(counts).tolist():
                shares[c].append(float(counts[c]))
            if not counts.any():
                empty.append(name)
            elif not all(counts[tag] for tag in tags):
                lacking.append(name)
        named = enumerate(self.index.classes)
        classes = {
            name: (tagged[c], len(shares[c]), sum(shares[c]) / max(len(shares[c]), 1))
            for c, name in named
        }
        return Found(classes, empty, lacking)

    def contact_sheets(self, names: Sequence[str]) -> Iterator[bytes]:
        """Draw contact sheets of a few rows each, as PNG files."""
        for start in range(0, len(names), ROWS_PER_SHEET):
            rows = [self.example(name) for name in names[start : start + ROWS_PER_SHEET]]
            panels = {row.id: row.panels for row in rows}
            yield sheets.png(sheets.contact_sheet(panels, [row.keys for row in rows]))


def evenly_spaced(names: Sequence[str], count: int) -> list[str]:
    """Return `count` names at equal distances, so that the choice depends on nothing else."""
    if count >= len(names):
        return list(names)
    return [names[(2 * n + 1) * len(names) // (2 * count)] for n in range(count)]


def ranked(scores: Mapping[str, float], worst: int) -> dict[str, list[str]]:
    """Return the ids of the `worst` images, lowest score first, and a quarter as many from the
    middle and from the top.

    Ties go by id; no image comes twice.
    """
    order = sorted(scores, key=lambda name: (scores[name], name))
    few, rest = -(-worst // 4), order[worst:]
    highest = rest[max(0, len(rest) - few) :]
    between = rest[: len(rest) - len(highest)]
    start = max(0, min((len(order) - few) // 2 - worst, len(between) - few))
    return {"worst": order[:worst], "median": between[start : start + few], "best": highest[::-1]}


def first_bad_step(name: str, images: Mapping[str, Mapping[str, float]]) -> str | None:
    """Return the first step at which an image is among the worst tenth; None if it never is.

    images: step -> id -> score, in the order of the pipeline. Ranks are compared, as steps differ
    in how high they score.
    """
    for step, scores in images.items():
        if name in scores:
            lower = sum(score < scores[name] for score in scores.values())
            if lower < WORST * len(scores):
                return step
    return None


def boxed(panel: np.ndarray, box: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """Return a copy of a panel with a light frame on a dark rim.

    box: (top, left, bottom, right) in pixels of the image, whose size is (height, width).
    """
    height, width = panel.shape[:2]
    down, across = height / size[0], width / size[1]
    corner = max(0, round(box[1] * across) - 2), max(0, round(box[0] * down) - 2)
    other = min(width - 1, round(box[3] * across) + 1), min(height - 1, round(box[2] * down) + 1)
    drawn = np.ascontiguousarray(panel.copy())
    for color, thickness in (((20, 20, 24), 4), ((255, 255, 255), 2)):
        cv2.rectangle(drawn, corner, other, color, thickness)
    return drawn
