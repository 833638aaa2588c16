"""Each defect of the published codes has a test that ours is free of it (`pytest -m defect`)."""

import importlib
import pkgutil
import re
import resource
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pipeline
from pipeline.core.artifacts import Reader, Writer
from pipeline.irnet.walk import random_walk
from pipeline.readers.build import build
from tests.support.defects import DEFECTS

TESTS = Path(__file__).resolve().parent


def test_every_defect_has_a_test() -> None:
    text = "".join(file.read_text(encoding="utf-8") for file in TESTS.rglob("*.py"))
    marks = re.findall(r"@pytest\.mark\.defect\((.*?)\)", text, re.S)
    assert {name for mark in marks for name in re.findall(r'"(.*?)"', mark)} == set(DEFECTS)


@pytest.mark.defect("irn-1", "irn-9")
def test_any_id_goes_through(tmp_path: Path) -> None:
    """From the source to an artifact and back, as text and in the order of text."""
    names = ["2007_000032", "20070032", "0", "IMG 17.b", "a/b/é", "straße_1"]
    for name in names:
        path = tmp_path / "source" / "images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 12, 3), len(name), np.uint8)).save(path)
    rows = "".join(f"{name},cat\n" for name in names)
    (tmp_path / "source" / "labels.csv").write_text("image,classes\n" + rows, encoding="utf-8")
    index = build("folder", tmp_path / "source", tmp_path / "out")
    assert set(index) == set(names)
    with Writer(tmp_path / "seeds.h5", "seeds", index.classes) as writer:
        for name in sorted(index):
            writer.write(name, {"seeds": index.image(name)[..., 0]})
    reader = Reader(tmp_path / "seeds.h5", "seeds")
    assert reader.names == sorted(names)
    assert all((reader[name]["seeds"] == len(name)).all() for name in names)


@pytest.mark.defect("irn-2", "puzzlecam-7")
def test_every_module_imports() -> None:
    """With the numpy and torch that are installed; pytest turns their warnings into errors."""
    modules = [m.name for m in pkgutil.walk_packages(pipeline.__path__, "pipeline.") if not m.ispkg]
    assert len(modules) > 40
    for name in modules:
        importlib.import_module(name)


@pytest.mark.defect("irn-25")
def test_an_image_of_a_million_pixels_walks_in_little_memory() -> None:
    """65,536 cells, whose dense matrix alone takes 16 GiB."""
    boundary = torch.rand(256, 256, generator=torch.Generator().manual_seed(0))
    unit = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    (walked,) = random_walk([boundary], [torch.rand(2, 256, 256)], steps=4)
    assert walked.shape == (2, 256, 256)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before < 500e6
