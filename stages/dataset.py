"""Stage dataset: check and index images, tags, splits and masks, or render the built-in scenes.

Reads the folder `dataset.source`; writes data/dataset/.
    dvc repro dataset
"""

from functools import partial
from pathlib import Path

from tqdm import tqdm

from pipeline.readers.build import build
from stages._command import DATASET, Parameters, Runtime, stage


@stage
def dataset(parameters: Parameters, runtime: Runtime) -> None:
    """Check and index the source into data/dataset."""
    if not runtime.is_main_process:
        return
    section = parameters.dataset
    with tqdm(desc="dataset", unit="image", mininterval=1) as bar:
        build(
            section.format,
            Path(section.source),
            DATASET,
            classes=section.classes,
            val=section.val,
            untagged=section.untagged,
            seed=parameters.base.seed,
            images=section.scenes.images,
            lists=section.voc.lists(),
            annotations=section.coco.annotations(),
            workers=runtime.workers,
            progress=partial(_move, bar),
        )


def _move(bar: tqdm, done: int, total: int) -> None:
    """Move a progress bar to `done` images of `total`."""
    bar.total = total
    bar.update(done - bar.n)


if __name__ == "__main__":
    dataset()
