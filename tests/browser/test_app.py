import io
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from pipeline.browser.app import image_app, listen
from pipeline.browser.layers import LAYERS
from pipeline.browser.render import Renderer
from pipeline.browser.run import Run
from pipeline.browser.sample import WalkSettings
from pipeline.errors import UserError
from tests.support.runs import NAMES, run_of, write_artifact


@pytest.fixture
def client(run: Run) -> Iterator[TestClient]:
    with TestClient(image_app(Renderer([run])), base_url="http://127.0.0.1:8080") as client:
        yield client


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("name", NAMES)
def test_images_layers_and_thumbnails_by_any_id(client: TestClient, run: Run, name: str) -> None:
    renderer = Renderer([run])
    for source in (
        renderer.image_url(run, name),
        renderer.thumbnail_url(run, name, "labels"),
        renderer.layer_url(run, name, "labels", WalkSettings()),
    ):
        assert client.get(source).status_code == 200, source


def test_layer_is_what_is_drawn(client: TestClient, run: Run) -> None:
    renderer = Renderer([run])
    settings = WalkSettings(class_=2, threshold=0.6)
    answer = client.get(renderer.layer_url(run, "f", "cams", settings))
    assert answer.headers["content-type"] == "image/png"
    expected = LAYERS["cams"].render(renderer.sample(run, "f"), settings)
    np.testing.assert_array_equal(pixels(answer.content), expected)


@pytest.mark.parametrize("path", ["/image?", "/layer/labels?", "/layer/nothing?", "/thumbnail?"])
@pytest.mark.parametrize("what", ["run=workspace&id=nobody", "run=other&id=f"])
def test_what_is_not_there_is_404_in_words(client: TestClient, path: str, what: str) -> None:
    answer = client.get(path + what)
    assert answer.status_code == 404
    assert len(answer.text.splitlines()) == 1


def test_damaged_layer_leaves_the_others_alone(folder: Path) -> None:
    (folder / "labels.h5").write_bytes(b"no HDF5")
    with TestClient(
        image_app(Renderer([run_of(folder)])), base_url="http://localhost:8080"
    ) as client:
        bad = client.get("/layer/labels?run=workspace&id=f")
        assert (bad.status_code, "dvc repro -f" in bad.text) == (404, True)
        assert client.get("/layer/cams?run=workspace&id=f").status_code == 200


def test_replaced_artifact_has_another_address(folder: Path) -> None:
    run = run_of(folder)
    renderer = Renderer([run])
    with TestClient(image_app(renderer), base_url="http://127.0.0.1") as client:
        before = renderer.layer_url(run, "f", "labels", WalkSettings())
        old = client.get(before).content
        write_artifact(folder, "labels", shift=6)
        after = renderer.layer_url(run, "f", "labels", WalkSettings())
        assert before != after
        assert client.get(after).content != old


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost:8080"}, 200),
        ({"Host": "evil.example:8080"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:8080"}, 200),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"Origin": "https://evil.example"}, 403),
    ],
)
def test_foreign_hosts_and_sites_are_refused(
    client: TestClient, headers: dict[str, str], status: int
) -> None:
    answer = client.get(f"/image?run=workspace&id={quote('b/two')}", headers=headers)
    assert answer.status_code == status
    assert status == 200 or "weakmask browse" in answer.text


def test_port_in_use_is_named() -> None:
    with closing(listen(0)) as taken:
        host, port = taken.getsockname()
        assert host == "127.0.0.1"
        with pytest.raises(UserError, match=rf"--port {port}: .*in use; `--port 0` takes any"):
            listen(port)
