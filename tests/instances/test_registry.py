"""The registry names every method, and `none` is one of them."""

import typing
from pathlib import Path

import pytest
import torch

from pipeline.core.weights import WeightsError, load_network, save_weights
from pipeline.instances import INSTANCE_MODELS, rebuild
from pipeline.instances.none import NoInstances
from pipeline.params.models import Instance


def test_registry_has_the_methods_of_the_parameters() -> None:
    assert set(INSTANCE_MODELS) == set(typing.get_args(Instance.model_fields["method"].annotation))


def test_unknown_method_lists_the_valid_ones(tmp_path: Path) -> None:
    path = tmp_path / "instance.safetensors"
    header = {"method": "yolo", "backbone": "", "classes": ["a"], "options": {}}
    save_weights(path, NoInstances(1), "instance", **header)
    with pytest.raises(WeightsError, match="no instance model 'yolo': use one of none, sparse"):
        load_network(path, "instance", rebuild, torch.device("cpu"))


def test_none_detects_nothing(tmp_path: Path) -> None:
    path = tmp_path / "instance.safetensors"
    header = {"method": "none", "backbone": "", "classes": ["a"], "options": {}}
    save_weights(path, NoInstances(1), "instance", **header)
    model = load_network(path, "instance", rebuild, torch.device("cpu"))
    one, two = model.predict([torch.zeros(3, 4, 6), torch.zeros(3, 5, 2)], score=0.0)
    assert [tuple(part.shape) for part in one] == [(0, 4, 6), (0,), (0,)]
    assert two.masks.shape == (0, 5, 2)
