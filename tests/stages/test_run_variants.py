"""The whole graph through DVC with other methods and other data than the first run's."""

from itertools import islice
from pathlib import Path

import pytest
from PIL import Image

from pipeline.data.index import Index
from tests.support.degenerate import TINY
from tests.support.repository import SCORED, run, scores_of, set_parameters

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.defect("s2c-6-7")
# with a segmenter, and with stored features; test_degenerate runs the stages of all methods
@pytest.mark.parametrize("method", ["s2c", "frozen"])
def test_other_methods_run_to_their_scores(restored: Path, method: str) -> None:
    set_parameters(restored, {"classifier.method": method, "classifier.s2c.warmup": 0})
    text = run(restored, "dvc", "repro", "scores@cams").stdout
    assert "Running stage 'classifier'" in text
    assert ("Running stage 'cams'") in text
    assert "Running stage 'segments'" not in text
    assert 0 <= scores_of(restored, "cams")["best_miou"] <= 100


def test_images_without_masks_run_to_a_report(restored: Path, tmp_path: Path) -> None:
    """A folder of images and their tags, as a user brings them: nothing to score by, everything
    else there. The networks are tiny.
    """
    index = Index.load(restored / "data/dataset")
    few = dict(islice(index.items(), 5))
    images, rows = tmp_path / "mine/images", ["image,classes"]
    images.mkdir(parents=True)
    for name, image in few.items():
        Image.fromarray(index.image(name)).save(images / f"{name}.png")
        rows.append(f"{name},{' '.join(index.classes[tag] for tag in image.tags)}")
    (tmp_path / "mine/labels.csv").write_text("\n".join(rows) + "\n")
    source = {"dataset.format": "folder", "dataset.source": str(tmp_path / "mine")}
    set_parameters(restored, TINY | source)
    text = run(restored, "weakmask", "run").stdout
    assert "no image has a ground-truth mask" in text
    assert "report: data/report/index.html" in text
    assert all(scores_of(restored, name) == {} for name in SCORED)
    page = (restored / "data/report/index.html").read_text()
    assert "data:image" in page
    assert "nan" not in page.lower().split()
    run(restored, "weakmask", "report-diff", "HEAD", "data/report")
    unscored = run(restored, "weakmask", "scores", check=False)
    assert unscored.returncode == 1
    assert "no image has a ground-truth mask" in unscored.stderr
    name = next(iter(few))
    unscored = run(restored, "weakmask", "inspect", "data/scores", name, check=False)
    assert "it scores no image: none of its split has a ground-truth mask" in unscored.stderr
    assert run(restored, "weakmask", "inspect").returncode == 0


@pytest.mark.parametrize("method", ["none", "maskrcnn"])
def test_other_instance_models_run_to_their_scores(restored: Path, method: str) -> None:
    set_parameters(restored, {"instance.method": method, "instance.maskrcnn.channels": 8})
    text = run(restored, "dvc", "repro", "scores@predictions").stdout
    assert "Running stage 'instance'" in text
    assert "Running stage 'semantic'" not in text
    found = scores_of(restored, "predictions")
    assert 0 <= found["miou"] <= 100
    assert method != "none" or "AP50" not in found
    assert method in run(restored, "weakmask", "inspect", "data/instance.safetensors").stdout
