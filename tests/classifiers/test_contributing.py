"""The worked example of CONTRIBUTING.md, a classifier method, works as printed there."""

import re
from pathlib import Path
from typing import Any

import torch

from pipeline.classifiers.base import TrainingData
from pipeline.nets.backbones import Backbone
from pipeline.params import pseudo_labels
from tests.classifiers.base import SMALL, random_images, step

ROOT = Path(__file__).resolve().parents[2]
METHOD, SECTION = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.S)
OPTIONS = {"cells": 4, "share": 0.5}


def defined(code: str, names: dict[str, Any]) -> Any:
    """Return the class `Hide` that a block of code defines on top of `names`."""
    exec(compile(code, "CONTRIBUTING.md", "exec"), names)
    return names["Hide"]


def test_printed_method_learns_and_hides_cells(data: TrainingData) -> None:
    torch.manual_seed(0)
    kind = defined(METHOD, {})
    network = kind(2, Backbone(SMALL))
    batch = random_images(3, 64, 96), torch.tensor([[1.0, 0], [0, 1], [1, 1]])
    terms = kind.loss_fn(data, **OPTIONS)(network, batch, step())
    terms["loss"].backward()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)
    seen: list[torch.Tensor] = []
    network.register_forward_pre_hook(lambda _, images: seen.append(images[0]))
    kind.loss_fn(data, cells=4, share=1.0)(network, batch, step())
    color = 255 * torch.tensor(data.mean).view(1, 3, 1, 1)
    assert torch.equal(seen[0], color.expand(3, 3, 64, 96))
    kind.loss_fn(data, cells=4, share=0.0)(network, batch, step())
    assert torch.equal(seen[1], batch[0].float())


def test_printed_section_takes_the_printed_values() -> None:
    section = defined(SECTION, dict(vars(pseudo_labels)))
    assert section(**OPTIONS).model_dump() == OPTIONS
