"""Hours and disk that data sets would take, from the rates that `python -m benchmarks.scale --rates
FILE` measured.

    python -m benchmarks.scale.sheet rates.json
    python -m benchmarks.scale.sheet rates.json --ranks 8       every stage spread over eight ranks as fast as the measured machine

Networks are counted in floating-point operations of their backbones (heads are left out), all else
in pixels. A rate holds for the machine on which it was measured: for a GPU box, measure there.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import click
import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.nets.backbones import create_backbone
from pipeline.params import presets

SIDE = 512
BACKWARD = 3
"""Operations of a training step for those of its forward pass."""
Parameters = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Data:
    """A data set: its images by split, the pixels of one in millions, and the preset that it is run
    with.
    """

    train: int
    val: int
    megapixels: float
    preset: str

    @property
    def images(self) -> int:
        """Images of both splits."""
        return self.train + self.val


SETS = {
    "VOC 2012 train_aug": Data(10582, 1449, 0.5 * 0.375, "voc12"),
    "COCO 2014": Data(82783, 40504, 0.64 * 0.48, "coco14"),
    "1M images of COCO's size": Data(1_000_000, 0, 0.64 * 0.48, "coco14"),
}


@cache
def operations(backbone: str) -> float:
    """Floating-point operations for a million pixels, in 10^12."""
    with torch.device("meta"):
        network = create_backbone(backbone, "none", dilated=True)
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            network(torch.empty(1, 3, SIDE, SIDE))
    return counter.get_total_flops() / SIDE**2 / 1e6


def works(parameters: Parameters, data: Data) -> dict[str, float]:
    """What each stage has to do: millions of pixels, or 10^12 operations where a network runs."""
    pixels = data.train * data.megapixels
    return {
        "dataset": data.images * data.megapixels,
        "classifier": _training(parameters["classifier"], data, BACKWARD),
        "cams": pixels * _views(parameters["cams"]) * _network(parameters["classifier"]),
        "seeds": pixels,
        # the backbone is fixed; the mean displacement takes each image once more
        "irnet": _training(parameters["irnet"], data, 1) + pixels * _network(parameters["irnet"]),
        "fields": pixels * 2 * _network(parameters["irnet"]),
        "labels": pixels,
        "semantic": _training(parameters["semantic"], data, BACKWARD),
        "instance": _training(parameters["instance"], data, BACKWARD),
        "predictions": data.val
        * data.megapixels
        * _views(parameters["predictions"])
        * _network(parameters["semantic"]),
    }


def _network(section: Parameters) -> float:
    return operations(section["backbone"]["name"])


def _views(section: Parameters) -> float:
    """Pixels that go through the network for one of an image."""
    return sum(scale**2 for scale in section["scales"]) * (2 if section["flip"] else 1)


def _training(section: Parameters, data: Data, passes: int) -> float:
    return section["epochs"] * data.train * section["crop"] ** 2 / 1e6 * _network(section) * passes


def rates(
    parameters: Parameters, data: Data, seconds: Mapping[str, float], disk: Mapping[str, int]
) -> dict[str, Any]:
    """What a run tells: work a second for each stage, and bytes for a million pixels in each
    output.

    seconds: by stage; disk: bytes by output, of which weights, tables and the report do not grow
    with the images.
    """
    todo = works(parameters, data)
    return {
        "work_per_second": {
            stage: todo[stage] / seconds[stage] for stage in todo if stage in seconds
        },
        "bytes_per_megapixel": {
            name: size / _held(name, data)
            for name, size in disk.items()
            if name.endswith(".h5") and size
        },
    }


def _held(output: str, data: Data) -> float:
    """Millions of pixels of the images that an output holds."""
    return (data.val if output == "predictions.h5" else data.train) * data.megapixels


def sheet(measured: Mapping[str, Any], ranks: int) -> Iterator[str]:
    """Lines of the table of hours, and of that of disk."""
    yield "| hours | " + " | ".join(SETS) + " |"
    yield "|---|" + "---|" * len(SETS)
    todo = {name: works(presets.load(data.preset), data) for name, data in SETS.items()}
    hours = {
        stage: [todo[name][stage] / rate / ranks / 3600 for name in SETS]
        for stage, rate in measured["work_per_second"].items()
    }
    for stage, cells in hours.items():
        yield f"| {stage} | " + " | ".join(f"{value:,.2f}" for value in cells) + " |"
    yield (
        "| all | "
        + " | ".join(f"{sum(column):,.1f}" for column in zip(*hours.values(), strict=True))
        + " |"
    )
    yield ""
    yield "| GB | " + " | ".join(SETS) + " |"
    yield "|---|" + "---|" * len(SETS)
    room = {
        name: [size * _held(name, data) / 1e9 for data in SETS.values()]
        for name, size in measured["bytes_per_megapixel"].items()
    }
    for name, cells in room.items():
        yield f"| {name} | " + " | ".join(f"{value:,.2f}" for value in cells) + " |"
    yield (
        "| all | "
        + " | ".join(f"{sum(column):,.1f}" for column in zip(*room.values(), strict=True))
        + " |"
    )


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--ranks", default=1, show_default=True, type=click.IntRange(1))
def main(file: Path, ranks: int) -> None:
    """Print the hours and the disk that known data sets would take with the rates of FILE."""
    measured = json.loads(file.read_text())
    click.echo(f"rates of: {measured['machine']}; {measured['command']}; ranks: {ranks}\n")
    for line in sheet(measured, ranks):
        click.echo(line)


if __name__ == "__main__":
    main()
