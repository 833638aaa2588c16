"""Final instance models by name, as `instance.method` and the headers of weights files give it.

A package per method holds everything about it: network, matching and losses. The methods share
base.py.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.instances.base import InstanceModel
from pipeline.instances.maskrcnn import MaskRCNN
from pipeline.instances.none import NoInstances
from pipeline.instances.sparseinst import SparseInst

INSTANCE_MODELS: Mapping[str, type[InstanceModel]] = {
    "none": NoInstances,
    "sparseinst": SparseInst,
    "maskrcnn": MaskRCNN,
}


def rebuild(header: Mapping[str, Any]) -> InstanceModel:
    """Return the model, untrained, that the header of a weights file describes.

    Raises ValueError for an unknown method, KeyError or TypeError for a header with other entries.
    """
    method = header["method"]
    if method not in INSTANCE_MODELS:
        raise ValueError(f"no instance model {method!r}: use one of {', '.join(INSTANCE_MODELS)}")
    model = INSTANCE_MODELS[method]
    return model(len(header["classes"]), header["backbone"], **header["options"])
