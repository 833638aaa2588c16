"""Multi-label classifiers whose class maps locate the classes, by the name of their method.

A package per method holds everything about it: network, training data and loss. The methods share
base.py, and extraction.py turns the maps of any of them into class activation maps.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.classifiers.base import Classifier
from pipeline.classifiers.cam import Cam
from pipeline.classifiers.frozen import Frozen
from pipeline.classifiers.puzzlecam import PuzzleCam
from pipeline.classifiers.s2c import S2C
from pipeline.classifiers.seenet import SeeNet
from pipeline.nets.backbones import Backbone

CLASSIFIERS: dict[str, type[Classifier]] = {
    "cam": Cam,
    "seenet": SeeNet,
    "puzzlecam": PuzzleCam,
    "s2c": S2C,
    "frozen": Frozen,
}


def new_classifier(
    method: str, classes: Sequence[str], backbone: Backbone, options: Mapping[str, Any]
) -> tuple[Classifier, dict[str, Any]]:
    """Create a network, and the header for its weights file.

    Args:
        method: A key of CLASSIFIERS.
        classes: Names of the classes, in the order of the network's outputs.
        backbone: Network of the features.
        options: All options of the method; those of the network (OPTIONS) go into the header.
    """
    shape = {name: options[name] for name in CLASSIFIERS[method].OPTIONS}
    network = CLASSIFIERS[method](len(classes), backbone, **shape)
    header = {
        "method": method,
        "backbone": backbone.name,
        "stride": backbone.stride,
        "dilated": backbone.dilated,
        "classes": classes,
        "options": shape,
    }
    return network, header


def load_classifier(header: Mapping[str, Any]) -> Classifier:
    """Create the network that the header of a weights file describes, its weights not yet loaded.

    Raises:
        KeyError, TypeError: The header lacks an entry, or the network has no such option.
        ValueError: No such method.
    """
    method = header["method"]
    if method not in CLASSIFIERS:
        raise ValueError(f"unknown classifier {method!r}; use one of {', '.join(CLASSIFIERS)}")
    backbone = Backbone(
        header["backbone"], output_stride=header["stride"], dilated=header["dilated"]
    )
    return CLASSIFIERS[method](len(header["classes"]), backbone, **header["options"])
