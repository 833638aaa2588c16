"""The server: image files by address, the pages, and the loopback socket that it listens on.

Lets nobody in but pages opened from this machine by its own names: no foreign Host (DNS rebinding),
no foreign Origin.
"""

import socket
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from urllib.parse import urlsplit

from fastapi import FastAPI, Query, Response
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline.browser.disagreements import Disagreements
from pipeline.browser.layers import LAYERS
from pipeline.browser.render import Drawings
from pipeline.browser.run import Run
from pipeline.browser.state import read_view
from pipeline.errors import UserError

HERE = frozenset({"127.0.0.1", "localhost"})
REFUSAL = "weakmask browse answers this machine's own browser only: open it as http://127.0.0.1 or http://localhost, with its port"


class Guard:
    """ASGI middleware that refuses requests and web sockets of other names and other sites."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on, or answer 403."""
        if scope["type"] not in ("http", "websocket") or allowed(Headers(scope=scope)):
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await PlainTextResponse(REFUSAL, 403)(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": "foreign host"})


def allowed(headers: Headers) -> bool:
    """Whether the Host is this machine and the Origin, if there is one, this very server."""
    host, origin = headers.get("host", ""), headers.get("origin")
    if urlsplit(f"//{host}").hostname not in HERE:
        return False
    return origin is None or urlsplit(origin).netloc == host


HOST = "127.0.0.1"
HEADERS = {
    "Cache-Control": "private, max-age=86400, immutable",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def images(drawings: Drawings) -> FastAPI:
    """The application without its pages: /image, /layer/KEY and /thumbnail, all by run and id."""
    app = FastAPI(openapi_url=None)
    runs = {run.name: run for run in drawings.runs}

    @app.get("/image")
    def image(run: str, name: str = Query(alias="id")) -> Response:
        """An image as JPEG."""
        return _answer(lambda: drawings.image(runs[run], name), "image/jpeg")

    @app.get("/thumbnail")
    def thumbnail(run: str, name: str = Query(alias="id"), show: str = "image") -> Response:
        """A small image as JPEG."""
        return _answer(lambda: drawings.thumbnail(runs[run], name, show), "image/jpeg")

    @app.get("/layer/{key}")
    def layer(
        key: str,
        run: str,
        name: str = Query(alias="id"),
        class_: str = "",
        threshold: str = "",
        beta: str = "",
        steps: str = "",
        background: str = "",
    ) -> Response:
        """A layer as PNG."""
        given = {
            "threshold": threshold,
            "beta": beta,
            "steps": steps,
            "background": background,
            "map": class_,
        }
        settings = read_view(given).settings
        return _answer(lambda: drawings.layer(runs[run], name, _known(key), settings), "image/png")

    app.add_middleware(Guard)
    return app


def _known(key: str) -> str:
    if key not in LAYERS:
        raise UserError(f"{key}: no such layer; there are {', '.join(LAYERS)}")
    return key


def _answer(make: Callable[[], bytes], kind: str) -> Response:
    """The file, or 404 with the reason in words."""
    try:
        return Response(make(), media_type=kind, headers=HEADERS)
    except KeyError as error:
        return Response(
            f"there is no {error.args[0]!r}", 404, media_type="text/plain; charset=utf-8"
        )
    except (UserError, ValueError) as error:
        return Response(str(error), 404, media_type="text/plain; charset=utf-8")


def listen(port: int) -> socket.socket:
    """A socket on the loopback address; port 0 is any free one. Raises UserError that suggests
    another port.
    """
    opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((HOST, port))
        opened.listen(128)
    except OSError as error:
        opened.close()
        raise UserError(
            f"--port {port}: {error.strerror or error}; try `weakmask browse --port {_free(port)}`"
        ) from error
    return opened


def _free(port: int) -> int:
    """The next port that nobody listens on."""
    for other in range(max(port, 1024) + 1, 65536):
        with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as attempt:
            try:
                attempt.bind((HOST, other))
            except OSError:
                continue
            return other
    return 0


def serve(runs: Sequence[Run], opened: socket.socket) -> None:
    """Serve the pages of these runs until Ctrl-C; the first run gives the grid its images."""
    import uvicorn

    app = application(runs)
    # NiceGUI looks through all objects for its server, and a deprecated one of torch complains
    warnings.filterwarnings("ignore", category=FutureWarning, module="nicegui")
    uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)).run(
        [opened]
    )


def application(runs: Sequence[Run]) -> FastAPI:
    """The whole application; once per process, as NiceGUI knows one alone."""
    from nicegui import ui

    from pipeline.browser.grid_page import add_grid
    from pipeline.browser.image_page import add_image_page

    drawings, disagreements = Drawings(runs), Disagreements()
    app = images(drawings)
    add_grid(drawings, disagreements)
    add_image_page(drawings, disagreements)
    ui.run_with(
        app,
        title="weakmask",
        favicon="🌿",
        tailwind=False,
        show_welcome_message=False,
        reconnect_timeout=30,
        # between a server and a browser on one machine, packing costs more than it saves
        gzip_middleware_factory=None,
    )
    return app
