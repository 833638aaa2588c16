"""What DVC notes of a small graph, and parameters to compare it with."""

from typing import Any


def written(path: str, content: str) -> dict[str, str]:
    return {"path": path, "hash": "md5", "md5": content}


def lock_of(*, labels_from: str = "c1") -> dict[str, Any]:
    """What DVC notes of a small graph; `labels_from` other than c1 is an entry left from another
    run.
    """
    return {
        "cams": {
            "deps": [written("stages/cams.py", "p")],
            "params": {"params.yaml": {"base.seed": 0, "cams": {"scales": [0.5], "flip": True}}},
            "outs": [written("data/cams.h5", "c1")],
        },
        "labels": {
            "deps": [written("data/cams.h5", labels_from)],
            "params": {"params.yaml": {"labels": {"background": 0.55}}},
            "outs": [written("data/labels.h5", "l1")],
        },
        "scores@cams": {
            "deps": [written("data/cams.h5", "c1")],
            "params": {"params.yaml": {"scores": {"background": 0.1}}},
            "outs": [written("data/scores/cams.json", "s1")],
        },
        "scores@labels": {
            "deps": [written("data/labels.h5", "l1")],
            "params": {"params.yaml": {"scores": {"background": 0.1}}},
            "outs": [written("data/scores/labels.json", "s2")],
        },
    }


ASKED: dict[str, Any] = {
    "base": {"seed": 0},
    "runtime": {"device": "cpu"},
    "cams": {"scales": [0.5], "flip": True},
    "labels": {"background": 0.55},
    "scores": {"background": 0.1},
}
