"""Each defect of the published codes has a test that ours is free of it (`pytest -m defect`)."""

import importlib
import pkgutil
import re
import resource
import sys
from pathlib import Path

import pytest
import torch

import pipeline
from pipeline.irnet.walk import random_walk
from tests.support.defects import DEFECTS

TESTS = Path(__file__).resolve().parent


def test_every_defect_has_a_test() -> None:
    text = "".join(file.read_text(encoding="utf-8") for file in TESTS.rglob("*.py"))
    marks = re.findall(r"@pytest\.mark\.defect\((.*?)\)", text, re.S)
    assert {name for mark in marks for name in re.findall(r'"(.*?)"', mark)} == set(DEFECTS)


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
