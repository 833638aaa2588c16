"""The browser's server: one page, what it shows as JSON, and image files, on this machine only.

Requests with another Host (DNS rebinding) or another Origin are refused.
"""

import json
from collections.abc import Sequence
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from pipeline.browser.clicks import Clicks
from pipeline.browser.pages import Pages
from pipeline.browser.run import Run
from pipeline.errors import UserError

HOST = "127.0.0.1"
LOCAL = frozenset({HOST, "localhost"})
REFUSAL = (
    "weakmask browse only answers the browser on this machine: "
    "open it as http://127.0.0.1 or http://localhost, with its port"
)
FOLDER = Path(__file__).parent
STATIC = {
    file.name: {".js": "text/javascript", ".css": "text/css"}[file.suffix]
    for file in FOLDER.iterdir()
    if file.suffix in (".js", ".css")
}
PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>weakmask browse</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">
<link rel="stylesheet" href="/static/style.css"><script type="module" src="/static/app.js"></script>
</head><body><noscript>This page needs JavaScript.</noscript></body></html>
"""
MOST = 2**20
"""Most bytes of what a page sends."""
FOREVER, NEVER = "private, max-age=86400, immutable", "no-store"


class Server(ThreadingHTTPServer):
    """Serves the pages of some runs; port 0 is any free one.

    clicks: what a person clicks on images of the first run, None if it cannot be saved; picked: ids
    of images to mark. Raises UserError when the port is in use.
    """

    daemon_threads = True

    def __init__(
        self,
        runs: Sequence[Run],
        port: int,
        clicks: Clicks | None = None,
        picked: Sequence[str] = (),
    ) -> None:
        self.pages = Pages(runs, clicks, picked)
        try:
            super().__init__((HOST, port), Handler)
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"--port {port}: {reason}; `--port 0` takes any free port") from error
        self.address = f"http://{HOST}:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or small answers wait 40 ms on a kept connection
    server: Server

    def do_GET(self) -> None:
        """Answer a request; 403 refuses it, 404 says why there is nothing at its address."""
        if not is_local(self.headers):
            self._send(403, REFUSAL.encode(), "text/plain")
            return
        try:
            self._answer()
        except (KeyError, UserError, ValueError) as error:
            missing = isinstance(error, KeyError)
            reason = f"there is no {error.args[0]!r}" if missing else str(error)
            self._send(404, reason.encode(), "text/plain")
        except ConnectionError:
            self.close_connection = True  # the page was left before it was complete

    def do_POST(self) -> None:
        """Save what a person clicked on an image; refuse others with 403 and nonsense with 400."""
        length = self.headers.get("Content-Length", "")
        short = length.isdecimal() and int(length) <= MOST
        if not (is_local(self.headers) and self.path == "/hints" and short):
            self.close_connection = True  # the body stays unread
            self._send(403, REFUSAL.encode(), "text/plain")
            return
        try:
            saved = self.server.pages.save_hints(json.loads(self.rfile.read(int(length))))
            self._send(200, json.dumps(saved).encode(), "application/json")
        except (KeyError, IndexError, TypeError, ValueError, OSError, UserError) as error:
            self._send(400, str(error).encode(), "text/plain")

    def _answer(self) -> None:
        url, pages = urlsplit(self.path), self.server.pages
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        kind, _, rest = url.path.removeprefix("/").partition("/")
        data = {
            "runs": pages.runs_data,
            "grid": pages.grid,
            "image": pages.image,
            "pane": pages.pane,
            "values": pages.values,
        }
        if kind == "file":
            self._send(200, *pages.file(rest, query), FOREVER)
        elif kind == "data":
            text = json.dumps(data[rest](query), ensure_ascii=False)
            self._send(200, text.encode(), "application/json")
        elif kind == "static" and rest in STATIC:
            self._send(200, (FOLDER / rest).read_bytes(), STATIC[rest])
        elif kind == "" or (kind == "image" and unquote(rest) in pages.first.index):
            self._send(200, PAGE.encode(), "text/html")
        else:
            self._send(404, PAGE.encode(), "text/html")

    def _send(self, status: int, content: bytes, media: str, cache: str = NEVER) -> None:
        self.send_response(status)
        text = "; charset=utf-8" if not media.startswith("image/") else ""
        for name, value in {
            "Content-Type": media + text,
            "Content-Length": str(len(content)),
            "Cache-Control": cache,
            "Content-Security-Policy": "default-src 'self'; img-src 'self' data:",
            "Cross-Origin-Resource-Policy": "same-origin",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Print nothing: the address is all that a terminal needs."""


def is_local(headers: Message) -> bool:
    """Whether the Host is this machine and the Origin, if there is one, this very server."""
    host, origin = headers.get("Host", ""), headers.get("Origin")
    if urlsplit(f"//{host}").hostname not in LOCAL:
        return False
    return origin is None or urlsplit(origin).netloc == host
