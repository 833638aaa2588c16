"""What all tests share: tiny untrained final models, and the order of the files."""

import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.core.weights import save_weights
from pipeline.instances.sparseinst import SparseInst
from pipeline.nets.deeplab import SemanticNet

LONGEST = "test_run.py"
CLASSES = ("cat", "dog, or wolf", "日本")
# a shell that starts the tests in the background lets them ignore Ctrl-C, which some of them send
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with the most slow tests first.

    A process that takes the longest file last lets the others wait for it; pytest-xdist keeps this
    order with --no-loadscope-reorder alone. The file of the longest tests begins with the run of
    the graph that others wait for, so files that need none follow it.
    """
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    waiting = {item.path for item in items if "finished" in getattr(item, "fixturenames", ())}

    def order(item: pytest.Item) -> tuple[bool, bool, bool, int]:
        path = item.path
        return path.name != LONGEST, not slow[path], path in waiting, -slow[path]

    items.sort(key=order)


@pytest.fixture(scope="session")
def semantic_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """semantic.safetensors of CLASSES."""
    torch.manual_seed(0)
    network = SemanticNet(len(CLASSES) + 1, "test_resnet")
    network.head[0].weight.data *= 300
    path = tmp_path_factory.mktemp("models") / "semantic.safetensors"
    save_weights(path, network, "semantic", backbone="test_resnet", classes=CLASSES)
    return path


@pytest.fixture(scope="session")
def instance_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """instance.safetensors of CLASSES, SparseInst, trained at shorter sides of 48 to 80 pixels by
    its header.
    """
    torch.manual_seed(0)
    options: dict[str, Any] = {"width": 16, "queries": 6, "groups": 2, "semantic": True}
    network = SparseInst(len(CLASSES), "test_resnet", **options)
    branch = network.decoder.instances
    branch.kernels.weight.data *= 30
    branch.classes.weight.data *= 30
    branch.classes.bias.data.zero_()
    path = tmp_path_factory.mktemp("models") / "instance.safetensors"
    header = {
        "method": "sparseinst",
        "backbone": "test_resnet",
        "classes": CLASSES,
        "options": options,
    }
    save_weights(path, network, "instance", **header, resize=(48, 80))
    return path
