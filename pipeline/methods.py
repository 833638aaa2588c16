"""Steps of which one method out of several is chosen: each method has a room with the same modules,
loaded by name.

Modules `network` (class Network, with OPTIONS, the parameters that shape it), `training` (samples,
objective), and what the step's use needs. Weights files hold what is needed to build the network
again: method, backbone, classes, options.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

CLASSIFIERS = "pipeline.classifiers"
INSTANCES = "pipeline.instances"
"""Packages that hold the rooms of the classifiers and of the instance models."""


class Method(NamedTuple):
    """A method ready to be trained: its network, its module `training`, the options left for that,
    and the header of its weights.
    """

    network: Any
    training: ModuleType
    options: dict[str, Any]
    header: dict[str, Any]


def room(package: str, method: str, part: str) -> ModuleType:
    """The module `part` of a method's room."""
    return import_module(f"{package}.{method}.{part}")


def build(
    package: str,
    method: str,
    classes: Sequence[str],
    backbone: str,
    weights: str,
    options: Mapping[str, Any],
) -> Method:
    """A method with a new network for `classes`; backbone, weights: see Backbone; options: all of
    the method's.
    """
    kind = room(package, method, "network").Network
    shape = {name: options[name] for name in kind.OPTIONS}
    return Method(
        kind(len(classes), backbone, weights, **shape),
        room(package, method, "training"),
        {name: value for name, value in options.items() if name not in shape},
        {"method": method, "backbone": backbone, "classes": classes, "options": shape},
    )


def rebuild(package: str, header: Mapping[str, Any]) -> Any:
    """The network, without its weights, that the header of a weights file describes."""
    kind = room(package, header["method"], "network").Network
    return kind(len(header["classes"]), header["backbone"], **header["options"])
