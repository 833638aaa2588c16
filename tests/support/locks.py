"""What DVC's lock file holds of a small graph."""

from typing import Any


def written(path: str, md5: str) -> dict[str, str]:
    return {"path": path, "hash": "md5", "md5": md5}


def lock_of(*, labels_from: str = "c1ca", background: float = 0.55) -> dict[str, Any]:
    """Return the stages; `labels_from` other than c1ca is an entry left from another run."""
    return {
        "cams": {
            "deps": [written("stages/cams.py", "abc1")],
            "params": {"params.yaml": {"base.seed": 0, "cams": {"scales": [0.5], "flip": True}}},
            "outs": [written("data/cams.h5", "c1ca")],
        },
        "labels": {
            "deps": [written("data/cams.h5", labels_from)],
            "params": {"params.yaml": {"labels": {"background": background}}},
            "outs": [written("data/labels.h5", "1abe")],
        },
        "scores@cams": {
            "deps": [written("data/cams.h5", "c1ca")],
            "params": {"params.yaml": {"scores": {"background": 0.1}}},
            "outs": [written("data/scores/cams.json", "5c04e1")],
        },
        "scores@labels": {
            "deps": [written("data/labels.h5", "1abe")],
            "params": {"params.yaml": {"scores": {"background": 0.1}, "labels.background": 0.55}},
            "outs": [written("data/scores/labels.json", "5c04e2")],
        },
    }
