"""The web application: image files by URL, the pages, and the loopback socket that it listens on.

Only pages opened on this machine get an answer: requests with another Host (DNS rebinding) or
another Origin are refused.
"""

import socket
import warnings
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from fastapi import FastAPI, Query, Request, Response
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline.browser.render import Renderer
from pipeline.browser.run import Run
from pipeline.browser.selection import Disagreements
from pipeline.browser.state import read_settings
from pipeline.errors import UserError

HOST = "127.0.0.1"
LOCAL = frozenset({HOST, "localhost"})
REFUSAL = (
    "weakmask browse only answers the browser on this machine: "
    "open it as http://127.0.0.1 or http://localhost, with its port"
)
HEADERS = {
    "Cache-Control": "private, max-age=86400, immutable",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class OriginCheck:
    """ASGI middleware that refuses requests and web sockets of other hosts and other sites."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 403."""
        if scope["type"] not in ("http", "websocket") or is_local(Headers(scope=scope)):
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await PlainTextResponse(REFUSAL, 403)(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": "foreign host"})


def is_local(headers: Headers) -> bool:
    """Whether the Host is this machine and the Origin, if there is one, this very server."""
    host, origin = headers.get("host", ""), headers.get("origin")
    if urlsplit(f"//{host}").hostname not in LOCAL:
        return False
    return origin is None or urlsplit(origin).netloc == host


def image_app(renderer: Renderer) -> FastAPI:
    """Return the application without its pages: /image, /layer/KEY and /thumbnail by run and id."""
    app = FastAPI(openapi_url=None)
    runs = {run.name: run for run in renderer.runs}

    @app.get("/image")
    def image(run: str, name: str = Query(alias="id")) -> Response:
        """Return an image as JPEG."""
        return _answer(lambda: renderer.image(runs[run], name), "image/jpeg")

    @app.get("/thumbnail")
    def thumbnail(run: str, name: str = Query(alias="id"), show: str = "image") -> Response:
        """Return a small image as JPEG."""
        return _answer(lambda: renderer.thumbnail(runs[run], name, show), "image/jpeg")

    @app.get("/layer/{key}")
    def layer(key: str, request: Request, run: str, name: str = Query(alias="id")) -> Response:
        """Return a layer as PNG."""
        settings = read_settings(request.query_params)
        return _answer(lambda: renderer.layer(runs[run], name, key, settings), "image/png")

    app.add_middleware(OriginCheck)
    return app


def _answer(make: Callable[[], bytes], kind: str) -> Response:
    """Return the file, or 404 with the reason."""
    try:
        return Response(make(), media_type=kind, headers=HEADERS)
    except KeyError as error:
        return PlainTextResponse(f"there is no {error.args[0]!r}", 404)
    except (UserError, ValueError) as error:
        return PlainTextResponse(str(error), 404)


def listen(port: int) -> socket.socket:
    """Open a socket on the loopback address; port 0 is any free one.

    Raises UserError when the port is in use.
    """
    opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((HOST, port))
        opened.listen(128)
    except OSError as error:
        opened.close()
        raise UserError(
            f"--port {port}: {error.strerror or error}; `--port 0` takes any free port"
        ) from error
    return opened


def serve(runs: Sequence[Run], opened: socket.socket) -> None:
    """Serve the pages of these runs until Ctrl-C; the grid shows the images of the first run."""
    import uvicorn

    app = application(runs)
    # NiceGUI looks through all objects for its server, and a deprecated one of torch complains
    warnings.filterwarnings("ignore", category=FutureWarning, module="nicegui")
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run([opened])


def application(runs: Sequence[Run]) -> FastAPI:
    """Return the whole application; once per process, as NiceGUI supports only one."""
    from nicegui import ui

    from pipeline.browser.grid_page import add_grid_page
    from pipeline.browser.image_page import add_image_page

    renderer, disagreements = Renderer(runs), Disagreements()
    app = image_app(renderer)
    add_grid_page(renderer, disagreements)
    add_image_page(renderer, disagreements)
    ui.run_with(
        app,
        title="weakmask",
        favicon="🌿",
        tailwind=False,
        show_welcome_message=False,
        reconnect_timeout=30,
        # on one machine, compression costs more than it saves
        gzip_middleware_factory=None,
    )
    return app
