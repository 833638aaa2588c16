"""Everything that an artifact holds of one image, drawn."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pipeline.instances.base import exclusive_record
from pipeline.views import overlays, sheets
from pipeline.views.inspection.facts import Item
from pipeline.views.inspection.words import known

Panels = list[tuple[str, np.ndarray]]


def draw(
    format_: str, item: Item, image: np.ndarray, classes: Sequence[str], side: int = 360
) -> np.ndarray:
    """One sheet of everything that an artifact holds about an image, uint8 RGB.

    format_: one of PANELS; item: arrays of the image; image: uint8 [H,W,3];
    side: the longer side of a panel in pixels. Raises ValueError for an unknown format.
    """
    drawn = known(PANELS, format_)(item, image, classes, side)
    captioned = [sheets.captioned(panel, title) for title, panel in drawn]
    across = 4 if len(captioned) != 5 else 3
    rows = [captioned[i : i + across] for i in range(0, len(captioned), across)]
    found = [item[key] for key in ("seeds", "semantic") if key in item]
    keys = sheets.legend(found, classes)
    return sheets.sheet(rows, [""] * len(rows), keys=[keys] + [()] * (len(rows) - 1))


def _draw_cams(item: Item, image: np.ndarray, classes: Sequence[str], side: int) -> Panels:
    found = [("image", sheets.panels(image, side=side)["image"])]
    for cam, label in zip(item["cams"], item["labels"].tolist(), strict=True):
        panel = sheets.panels(image, cams=cam[None], side=side)["CAM"]
        found.append(
            (f"{_class_name(label, classes)}, up to {np.nan_to_num(cam).max(initial=0):.2f}", panel)
        )
    return found


def _draw_maps(item: Item, image: np.ndarray, classes: Sequence[str], side: int) -> Panels:
    given = {
        "seeds": item.get("seeds"),
        "pseudo_label": item.get("semantic"),
        "instances": item.get("instances"),
    }
    return list(sheets.panels(image, **given, side=side).items())


def _draw_fields(item: Item, image: np.ndarray, classes: Sequence[str], side: int) -> Panels:
    drawn = sheets.panels(
        image, boundary=item["boundary"], displacement=item["displacement"], side=side
    )
    reach = overlays.reach(np.nan_to_num(item["displacement"]))
    drawn[f"displacement, rim of the wheel {reach:.1f} cells"] = drawn.pop("displacement")
    return list(drawn.items())


def _draw_predictions(item: Item, image: np.ndarray, classes: Sequence[str], side: int) -> Panels:
    drawn = exclusive_record(item)
    found = {"prediction": drawn["semantic"], "predicted_instances": drawn["instances"]}
    return list(sheets.panels(image, **found, side=side).items())


def _draw_segments(item: Item, image: np.ndarray, classes: Sequence[str], side: int) -> Panels:
    drawn = sheets.panels(image, instances=item["segments"], side=side)
    drawn[f"{len(item['stability'])} segments"] = drawn.pop("instances")
    return list(drawn.items())


def _class_name(label: int, classes: Sequence[str]) -> str:
    return classes[label] if label < len(classes) else f"unknown class {label}"


PANELS: Mapping[str, Callable[[Item, np.ndarray, Sequence[str], int], Panels]] = {
    "segments": _draw_segments,
    "cams": _draw_cams,
    "seeds": _draw_maps,
    "fields": _draw_fields,
    "labels": _draw_maps,
    "predictions": _draw_predictions,
}
