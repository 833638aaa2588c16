"""Every method is built from its own options and rebuilt from the header of its weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pipeline.methods import CLASSIFIERS, INSTANCES, build, rebuild

PARAMETERS = yaml.safe_load((Path(__file__).resolve().parents[2] / "params.yaml").read_text())
FAMILIES = {
    CLASSIFIERS: ("classifier", ["cam", "seenet", "puzzlecam", "s2c"]),
    INSTANCES: ("instance", ["sparseinst", "maskrcnn"]),
}
METHODS = [
    (package, section, method) for package, (section, names) in FAMILIES.items() for method in names
]


@pytest.mark.parametrize(("package", "section", "method"), METHODS)
def test_rebuilt_from_the_header_it_takes_the_weights(
    package: str, section: str, method: str
) -> None:
    options: dict[str, Any] = PARAMETERS[section][method]
    made = build(package, method, ("cat", "dog", "cow"), "test_resnet", "none", options)
    assert made.header["options"] | made.options == options
    assert not made.header["options"].keys() & made.options.keys()
    again = rebuild(package, made.header)
    again.load_state_dict(made.network.state_dict(), strict=True)
    assert all(
        torch.equal(a, b)
        for a, b in zip(again.parameters(), made.network.parameters(), strict=True)
    )


@pytest.mark.parametrize(("package", "section", "method"), METHODS)
def test_what_is_new_is_all_but_the_backbone(package: str, section: str, method: str) -> None:
    network = build(
        package, method, ("cat",), "test_resnet", "none", PARAMETERS[section][method]
    ).network
    assert not set(network.new_parameters()) & set(network.backbone.parameters())
    assert set(network.new_parameters()) <= set(network.parameters())
