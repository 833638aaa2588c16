"""Each defect of the published codes has a test that ours is free of it (`pytest -m defect`).

Ids are numbered as in the notes on each code; a test may be marked with several of them.
"""

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

TESTS = Path(__file__).resolve().parent
DEFECTS = {
    "irn-1": "lists of ids such as 2007_000032 cannot be read",
    "irn-2": "names that numpy has dropped",
    "irn-3": "images above 512 pixels are cropped and the walk fails",
    "irn-4": "fewer than 20 images divide by zero",
    "irn-5": "fewer images than a batch lose the training",
    "irn-6": "without a GPU nothing happens",
    "irn-7": "images without classes fail",
    "irn-8": "gray and RGBA images fail, only .jpg is read",
    "irn-9": "ids must look like YYYY_NNNNNN",
    "irn-10": "a nan in the displacement is an index error",
    "irn-11": "no foreground is an error",
    "irn-12": "20 classes are wired in",
    "irn-13": "the optimizer loses its momentum",
    "irn-14": "switches and numbers are read as text",
    "irn-15": "an all-zero class map becomes nan",
    "irn-16": "wrong checkpoints run with random heads",
    "irn-17": "a weak class vanishes beside a strong one",
    "irn-18": "class maps are shifted against each other",
    "irn-19": "eval() and train() return nothing and change nothing",
    "irn-20": "scaling an image without labels takes its first row",
    "irn-21": "the mean shift depends on the list that is labeled",
    "irn-22": "small fragments are kept with score zero",
    "irn-23": "annotation ids repeat, classes count from 0, and json fails on numpy's numbers",
    "irn-24": "weight files get their suffix twice",
    "irn-25": "memory grows with the square of the cells",
    "irn-26": "defaults are not the settings that were run",
    "irn-27": "no two runs agree",
    "seenet-1": "the sign is never reversed",
    "seenet-2": "erased places leak gradient in all channels but one",
    "seenet-3": "one image's mask serves the batch",
    "seenet-4": "twenty classes, and all is erased without a label",
    "seenet-5": "labels pile up from class to class",
    "seenet-6": "no third branch, no losses",
    "puzzlecam-1": "momentum is lost",
    "puzzlecam-2": "an eighth of the images is scored",
    "puzzlecam-3": "the model is selected on pixel truth",
    "puzzlecam-5": "odd crops are split into three strips",
    "puzzlecam-6": "the last, smaller batch cannot be merged",
    "puzzlecam-7": "names that numpy has dropped",
    "s2c-1": "every crop is encoded again",
    "s2c-2": "the temperature multiplies",
    "s2c-3": "the surest segment wins, not the smallest",
    "s2c-5": "a counter that stays 0 divides",
    "s2c-6-7": "options that do not exist, or are needed and undefined",
    "s2c-8": "paths of the authors' machine",
    "s2c-9": "no pseudo-masks, no final model",
    "s2c-10": "momentum is lost",
    "s2c-segments": "more than 255 segments wrap; the first is lost where all is covered",
    "s2c-peaks": "the strongest peak is dropped or doubled",
    "sparseinst-4": "small targets vanish",
    "sparseinst-9.1": "loss weights are not the paper's, and hard-coded",
    "sparseinst-9.3": "scores are not the equation",
    "sparseinst-9.4": "thresholds of training and use differ unsaid",
    "sparseinst-9.5-9.10": "a parameter without effect",
    "sparseinst-9.6": "other than four groups mix queries",
    "sparseinst-9.7": "a batch without targets fails",
    "sparseinst-9.8": "more targets than queries spoil the next images",
    "sparseinst-9.9": "two thresholds for one score",
    "sparseinst-6.5": "nothing kept is an error downstream",
    "sparseinst-9.12": "padding changes an image's result",
    "sparseinst-9.13": "terms are normalized by rank",
    "sparseinst-3": "a single cell has no coordinate",
    "sparseinst-10": "invalid entries stop the matching",
}


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
