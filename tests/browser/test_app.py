"""The server: files, data and pages by URL, and what it refuses."""

import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from urllib.parse import quote, urlencode

import numpy as np
import pytest
from PIL import Image

from pipeline.browser.app import MOST, Server
from pipeline.browser.clicks import Clicks
from pipeline.browser.layers import LAYERS, drawn_size
from pipeline.browser.run import Run
from pipeline.browser.sample import Sample, WalkSettings
from pipeline.errors import UserError
from pipeline.readers.hints import read_hints, render
from pipeline.views import overlays
from tests.support.runs import HEIGHT, WIDTH, run_of, write_artifact


class Client:
    """One connection to a server, which it asks for URLs."""

    def __init__(self, server: Server) -> None:
        self.server, self.connection = server, HTTPConnection("127.0.0.1", server.server_port)

    def get(self, url: str, headers: dict[str, str] | None = None) -> tuple[HTTPResponse, bytes]:
        self.connection.request("GET", url, headers=headers or {})
        answer = self.connection.getresponse()
        return answer, answer.read()

    def post(self, content: object, headers: dict[str, str] | None = None) -> tuple[int, str]:
        self.connection.request("POST", "/hints", json.dumps(content), headers or {})
        answer = self.connection.getresponse()
        return answer.status, answer.read().decode()

    def data(self, what: str, **query: str) -> dict:
        answer, content = self.get(f"/data/{what}?{urlencode(query)}")
        assert answer.status == 200, content
        return json.loads(content)


@contextmanager
def serving(*runs: Run, clicks: Clicks | None = None) -> Iterator[Client]:
    with Server(runs, 0, clicks, ["f", "gone"]) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        client = Client(server)
        yield client
        client.connection.close()
        server.shutdown()


@pytest.fixture(scope="module")
def client(run: Run) -> Iterator[Client]:
    with serving(run) as client:
        yield client


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("name", ["b/two", "c été <b>", "e100%"])
def test_every_file_of_any_id_is_served_and_kept_by_the_browser(client: Client, name: str) -> None:
    card = next(one for one in client.data("grid")["cards"] if one["id"] == name)
    pane = client.data("pane", run="workspace", id=name, layers=",".join(LAYERS))
    assert (card["tags"], pane["problems"]) != ([], None)
    assert list(pane["layers"]) == list(LAYERS) == pane["available"]
    for url in (card["image"], card["layer"], pane["image"], *pane["layers"].values()):
        answer, content = client.get(url)
        assert answer.status == 200, url
        assert "immutable" in (answer.headers["Cache-Control"] or "")
        assert pixels(content).shape[0] > 100
    assert client.get(f"/image/{quote(name, safe='')}")[0].status == 200


def test_layer_is_what_is_drawn_with_the_settings(client: Client, run: Run) -> None:
    query = {"run": "workspace", "id": "f", "layers": "cams", "class_": "2", "threshold": "0.6"}
    url = client.data("pane", **query)["layers"]["cams"]
    size = drawn_size((HEIGHT, WIDTH))
    draw = LAYERS["cams"].draw(Sample(run, "f"), WalkSettings(class_=2, threshold=0.6), size)
    np.testing.assert_array_equal(pixels(client.get(url)[1]), overlays.layer(draw, size))


@pytest.mark.parametrize("path", ["file/image", "file/layer", "file/thumbnail", "data/values"])
@pytest.mark.parametrize("what", ["run=workspace&id=nobody", "run=other&id=f", ""])
def test_what_is_not_there_is_404_in_words(client: Client, path: str, what: str) -> None:
    answer, content = client.get(f"/{path}?{what}&key=labels&x=0&y=0")
    assert answer.status == 404
    assert len(content.splitlines()) == 1


def test_other_paths_are_404_and_unknown_ids_propose_others(client: Client) -> None:
    layer = "/file/layer?run=workspace&id=f&key=nothing"
    for path in ("/image/b%2Ftwi", "/static/app.py", "/static/../app.py", "/data/nothing", layer):
        assert client.get(path)[0].status == 404
    answer, content = client.get("/data/image?id=b%2Ftwi")
    assert (answer.status, "similar ids: b/two" in content.decode()) == (404, True)
    for name in ("app.js", "base.js", "grid.js", "image.js", "marks.js", "style.css"):
        assert client.get(f"/static/{name}")[0].status == 200


def test_damaged_layer_leaves_the_others_alone(folder: Path) -> None:
    (folder / "labels.h5").write_bytes(b"no HDF5")
    with serving(run_of(folder)) as client:
        pane = client.data("pane", run="workspace", id="f", layers="labels,cams")
        assert list(pane["layers"]) == ["cams"]
        assert "labels.h5: not a readable HDF5 file" in pane["problems"][0]
        answer, content = client.get("/file/layer?run=workspace&id=f&key=labels")
        assert (answer.status, b"dvc repro -f" in content) == (404, True)


def test_replaced_artifact_has_another_address(folder: Path) -> None:
    with serving(run_of(folder)) as client:
        query = {"run": "workspace", "id": "f", "layers": "labels"}
        before = client.data("pane", **query)["layers"]["labels"]
        old = client.get(before)[1]
        write_artifact(folder, "labels", shift=6)
        after = client.data("pane", **query)["layers"]["labels"]
        assert before != after
        assert client.get(after)[1] != old


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost:8080"}, 200),
        ({"Host": "evil.example:8080"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "127.0.0.1:8080", "Origin": "http://127.0.0.1:8080"}, 200),
        ({"Host": "127.0.0.1:8080", "Origin": "http://127.0.0.1:9999"}, 403),
        ({"Origin": "https://evil.example"}, 403),
    ],
)
def test_foreign_hosts_and_sites_are_refused(
    client: Client, headers: dict[str, str], status: int
) -> None:
    answer, content = client.get("/data/grid", headers)
    assert answer.status == status
    assert status == 200 or b"weakmask browse" in content


def test_port_in_use_is_named(run: Run) -> None:
    with Server([run], 0) as taken:
        port = taken.server_port
        assert taken.address == f"http://127.0.0.1:{port}"
        with pytest.raises(UserError, match=rf"--port {port}: .*in use; `--port 0` takes any"):
            Server([run], port)


def test_clicks_become_hints_that_the_reader_takes_and_the_page_shows_again(folder: Path) -> None:
    run, clicks = run_of(folder), Clicks(folder / "hints")
    with serving(run, clicks=clicks) as client:
        assert client.data("image", id="b/two")["marks"] == []
        assert client.data("image", id="f")["marks"] is None, "of split val"
        for marks in ([[3, 40.9, 29.9], [0, 0, 0], [2, 4, 5, 41, 12.5]], [[2, 7.5, 3]]):
            status, text = client.post({"id": "b/two", "marks": marks})
            assert (status, "dvc repro" in text) == (200, True), text
            assert client.data("image", id="b/two")["marks"] == marks
            found = read_hints(folder, run.index)
            record = render(found.images["b/two"], run.index, "b/two", None)
            if len(marks) == 1:  # it replaces the others
                assert (record["pixels"][3, 7], len(record["boxes"])) == (2, 0)
            else:
                assert (record["pixels"][29, 40], record["pixels"][0, 0]) == (3, 0)
                assert record["boxes"].tolist() == [[1, 1, 1, 4, 5, 41, 12.5]]
        client.post({"id": "d-日本", "marks": [[1, 1, 1]]})
        client.post({"id": "b/two", "marks": []})
        assert {*read_hints(folder, run.index).images} == {"d-日本"}
        client.post({"id": "d-日本", "marks": []})
    assert list((folder / "hints").iterdir()) == []


@pytest.mark.parametrize(
    ("marks", "name"),
    [
        ([[1, 41, 3]], "b/two"),
        ([[1, 3, float("nan")]], "b/two"),
        ([[4, 3, 3]], "b/two"),
        ([[1.5, 3, 3]], "b/two"),
        ([[0, 3, 3, 9, 9]], "b/two"),
        ([[1, 9, 3, 3, 9]], "b/two"),
        ([[1, 3, 3, 9]], "b/two"),
        ([[]], "b/two"),
        ([["1", "3", "3"]], "b/two"),
        (7, "b/two"),
        ([[1, 3, 3]], "f"),
        ([[1, 3, 3]], "../../b"),
    ],
)
def test_nonsense_is_no_hint(folder: Path, marks: object, name: str) -> None:
    with serving(run_of(folder), clicks=Clicks(folder / "hints")) as client:
        assert client.post({"id": name, "marks": marks})[0] == 400
    assert not (folder / "hints").exists()


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Host": "evil.example"},
        {"Content-Length": str(MOST + 1)},
        {"Content-Length": "many"},
    ],
)
def test_other_sites_save_no_hints(folder: Path, headers: dict[str, str]) -> None:
    with serving(run_of(folder), clicks=Clicks(folder / "hints")) as client:
        assert client.post({"id": "b/two", "marks": [[1, 3, 3]]}, headers)[0] == 403
    assert not (folder / "hints").exists()


def test_without_a_source_of_its_own_a_run_takes_no_hints(client: Client) -> None:
    assert client.data("image", id="b/two")["marks"] is None
    assert "workspace" in client.post({"id": "b/two", "marks": [[1, 3, 3]]})[1]


def test_a_file_that_the_browser_did_not_write_is_named(folder: Path) -> None:
    (folder / "hints").mkdir()
    (folder / "hints/clicked.csv").write_text("image,class,x,y\nb/two,cow,3,3\n")
    with serving(run_of(folder), clicks=Clicks(folder / "hints")) as client:
        status, text = client.post({"id": "b/two", "marks": [[1, 3, 3]]})
        assert (status, "clicked.csv" in text) == (400, True)
        assert client.data("image", id="b/two")["marks"] is None
        pane = client.data("pane", run="workspace", id="b/two", layers="labels")
        assert ["clicked.csv" in text for text in pane["problems"]] == [True]
        assert pane["layers"].keys() == {"labels"}


def test_picked_images_are_marked_and_filtered(client: Client) -> None:
    assert client.data("runs")["picked"] == 1
    assert [one["id"] for one in client.data("grid", picked="1")["cards"]] == ["f"]
    assert [one["picked"] for one in client.data("grid")["cards"]].count(True) == 1
    assert client.data("image", id="f")["picked"]
