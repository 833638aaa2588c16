"""Two refinements of an image, as seeds need them: kernels built once, or a fresh CRF for each."""

from collections.abc import Callable

import numpy as np

from benchmarks.measure import Benchmark
from pipeline.labelling.crf import label_refiner
from pipeline.params import presets

HEIGHT, WIDTH, LABELS = 375, 500, 3
SETTINGS = presets.load("voc12")["seeds"]["crf"]


def inputs() -> tuple[np.ndarray, list[np.ndarray]]:
    """Return an image of smooth colors with noise, and two label maps of it."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH] / WIDTH
    waves = [np.sin(x * a + y * b + c) for a, b, c in rng.uniform(2, 15, (5, 3))]
    image = np.stack(waves[:3], -1) * 80 + 128 + rng.normal(0, 6, (HEIGHT, WIDTH, 3))
    maps = [(waves[3] > low).astype(np.int64) + (waves[4] > low) for low in (0.3, -0.3)]
    return image.clip(0, 255).astype(np.uint8), maps


def ours() -> Callable[[], object]:
    image, maps = inputs()

    def call() -> list[np.ndarray]:
        refine = label_refiner(image, LABELS, SETTINGS)
        return [refine(label_map) for label_map in maps]

    return call


def fresh() -> Callable[[], object]:
    image, maps = inputs()
    return lambda: [_refined(image, label_map) for label_map in maps]


def _refined(image: np.ndarray, label_map: np.ndarray) -> np.ndarray:
    """Plain use of pydensecrf, as the published code has it."""
    from pydensecrf import densecrf
    from pydensecrf.utils import unary_from_labels

    crf = densecrf.DenseCRF2D(WIDTH, HEIGHT, LABELS)
    unary = unary_from_labels(label_map, LABELS, gt_prob=SETTINGS["confidence"], zero_unsure=False)
    crf.setUnaryEnergy(np.ascontiguousarray(unary, dtype=np.float32))
    crf.addPairwiseGaussian(sxy=SETTINGS["smooth_xy"], compat=SETTINGS["smooth_weight"])
    crf.addPairwiseBilateral(
        sxy=SETTINGS["bilateral_xy"],
        srgb=SETTINGS["bilateral_rgb"],
        rgbim=image,
        compat=SETTINGS["bilateral_weight"],
    )
    return np.argmax(crf.inference(int(SETTINGS["iterations"])), 0).reshape(HEIGHT, WIDTH)


BENCHMARKS = (
    Benchmark(
        "dense CRF, both label maps of an image",
        f"{WIDTH}x{HEIGHT}, {LABELS} labels",
        ours,
        fresh,
        "a fresh CRF for each (pydensecrf), same run",
        runs=3,
    ),
)
