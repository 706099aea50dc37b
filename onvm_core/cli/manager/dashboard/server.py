"""The web server of the dashboard: one page, and what it shows as a stream or once, as JSON."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from onvm_core.cli.manager.dashboard.source import Source
from onvm_core.export.listen import is_right_token

__all__ = ["make_app"]

FOLDER = Path(__file__).parent
_FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_HEADERS = {
    # Nothing from elsewhere: the page works offline, and cannot be put into another one.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def make_app(source: Source, interval_s: float, token: str | None, hosts: list[str]) -> Starlette:
    """The application.

    Args:
        interval_s: time between two views.
        token: the token that a viewer gives; None: none is wanted.
        hosts: names under which browsers may reach it, against DNS rebinding.
    """

    def is_allowed(request: Request) -> bool:
        header = request.headers.get("authorization", "").removeprefix("Bearer ")
        given = header or request.query_params.get("token", "") or request.cookies.get("onvm", "")
        return is_right_token(given, token)

    async def file(request: Request) -> Response:
        if not is_allowed(request):
            return PlainTextResponse("expected ?token=TOKEN\n", 401, headers=_HEADERS)
        name, kind = _FILES[request.url.path]
        answer = Response((FOLDER / name).read_bytes(), media_type=kind, headers=_HEADERS)
        if token is not None:
            answer.set_cookie("onvm", token, httponly=True, samesite="strict")
        return answer

    async def events(request: Request) -> Response:
        if not is_allowed(request):
            return PlainTextResponse("expected a token\n", 401, headers=_HEADERS)
        return StreamingResponse(
            _stream(source, interval_s), media_type="text/event-stream", headers=_HEADERS
        )

    async def view(request: Request) -> Response:
        if not is_allowed(request):
            return PlainTextResponse("expected a token\n", 401, headers=_HEADERS)
        if "later" in request.query_params:
            await asyncio.sleep(interval_s)
        data = await run_in_threadpool(source.read)
        return Response(data, media_type="application/json", headers=_HEADERS)

    routes: list[Any] = [
        *(Route(path, file) for path in _FILES),
        Route("/events", events),
        Route("/view", view),
    ]
    trusted = Middleware(TrustedHostMiddleware, allowed_hosts=hosts)
    return Starlette(routes=routes, middleware=[trusted])


async def _stream(source: Source, interval_s: float) -> AsyncIterator[bytes]:
    while True:
        yield b"data: " + await run_in_threadpool(source.read) + b"\n\n"
        await asyncio.sleep(interval_s)
