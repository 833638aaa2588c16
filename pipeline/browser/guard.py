"""Lets nobody in but pages opened from this machine by its own names: no foreign Host (DNS rebinding), no foreign Origin."""

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

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
