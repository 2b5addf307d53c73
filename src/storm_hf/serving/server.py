"""FastAPI application: routes, authentication, concurrency limit, OpenAI-style errors."""

import asyncio
import logging
import socket
import time
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException
from starlette.routing import Route

from storm_hf.errors import RequestError, is_machine_fault
from storm_hf.reporting.page import render_page
from storm_hf.serving.chat import ChatModel
from storm_hf.serving.endpoint import ChatEndpoint
from storm_hf.serving.limits import RequestLimiter, ServerStats
from storm_hf.serving.replies import as_reply, encode, error_body


def build_app(chat: ChatModel, limiter: RequestLimiter | None = None) -> FastAPI:
    """Make the application.

    Args:
        chat ([`ChatModel`]):
            Answers chat completions.
        limiter ([`RequestLimiter`], *optional*):
            Admits requests.

    Returns:
        `FastAPI`: With `/v1/chat/completions`, `/v1/models` (also by name), `/health` and a page for browsers at `/`.
    """
    limiter, stats = limiter or RequestLimiter(), ServerStats()
    app = FastAPI(title="storm serve", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(HTTPException, _reply_in_openai_form)
    app.add_exception_handler(RequestError, _reply_with_refusal)
    app.router.routes.append(Route("/v1/chat/completions", ChatEndpoint(chat, limiter, stats), methods=["POST"]))
    entry = {"id": chat.name, "object": "model", "created": int(stats.started), "owned_by": "storm_hf"}

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"object": "list", "data": [entry]}

    @app.get("/v1/models/{name:path}")
    def model(name: str) -> dict[str, Any]:
        chat.check_name(name)
        return entry

    @app.get("/health")
    def health() -> dict[str, Any]:
        return describe(chat, stats)

    @app.get("/", response_class=HTMLResponse)
    def page(request: Request) -> str:
        known = describe(chat, stats)
        rows = [(name.replace("_", " "), value) for name, value in known.items()]
        return render_page("storm_hf.serving", "health.html.j2", **known, rows=rows, url=str(request.base_url))

    return app


def describe(chat: ChatModel, stats: ServerStats) -> dict[str, Any]:
    """Describe a server: its model, its limits and its counts."""
    return {
        "status": "ok",
        "model": chat.name,
        "backbone": chat.model.backbone.config.model_type,
        "num_latents": chat.model.config.num_latents,
        "device": str(chat.model.device),
        "max_video_seconds": chat.media.max_video_seconds,
        "max_new_tokens": chat.max_new_tokens,
        "in_flight": stats.in_flight,
        "answered": stats.answered,
        "refused": stats.refused,
        "failed": stats.failed,
        "cancelled": stats.cancelled,
        "clips_read": chat.prefixes.num_read,
        "clips_reused": chat.prefixes.num_reused,
        "kept_clips": len(chat.prefixes),
        "kept_clip_bytes": chat.prefixes.num_bytes,
        "seconds_up": int(time.time() - stats.started),
    }


def _reply_in_openai_form(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    body = encode(error_body(error.status_code, f"{error.detail}: {request.scope['method']} {request.scope['path']}."))
    return Response(body, error.status_code, headers=error.headers, media_type="application/json")


def _reply_with_refusal(request: Request, error: Exception) -> Response:
    status, body = as_reply(error)
    return Response(encode(body), status, media_type="application/json")


_SECONDS_BETWEEN = 60.0

logger = logging.getLogger(__name__)


class ListeningServer(uvicorn.Server):
    """uvicorn's server, with one line a minute where connections cannot be accepted.

    asyncio tries again a second later, up to `backlog` times in a row (2,048 by default), and reports each attempt with a
    traceback. These are megabytes a second in a log, and a server whose output is not read stands still.
    """

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen.

        Args:
            sockets (`list[socket.socket]`, *optional*):
                Sockets that are bound already.
        """
        asyncio.get_running_loop().set_exception_handler(ConnectionFaults())
        await super().startup(sockets)


class ConnectionFaults:
    """Handler of an event loop's errors: connections that the machine refuses are logged once a minute, others as ever."""

    def __init__(self) -> None:
        self._silent_until = 0.0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log an error.

        Args:
            loop (`asyncio.AbstractEventLoop`):
                The event loop.
            context (`dict[str, Any]`):
                Description of the error, as asyncio makes it.
        """
        error = context.get("exception")
        if "socket" not in context or error is None or not is_machine_fault(error):
            loop.default_exception_handler(context)
        elif loop.time() >= self._silent_until:
            self._silent_until = loop.time() + _SECONDS_BETWEEN
            logger.error(
                "Expected to accept a connection but the system refuses it (%s). It waits until there is room. Close other "
                "connections, or allow more open files (`ulimit -n`) before the server starts.",
                error,
            )
