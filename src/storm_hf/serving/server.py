"""The application: routes, who may come in, how many at once, and errors in the form that OpenAI clients show."""

import secrets
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import HTTPException, RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from transformers.cli.serving.utils import X_REQUEST_ID

from storm_hf.errors import RequestError, StormError
from storm_hf.reporting.page import render_page
from storm_hf.serving.chat import StormChatHandler


_ENDPOINT = "/v1/chat/completions"


@dataclass
class Ledger:
    """What a server has done so far."""

    started: float = field(default_factory=time.time)
    in_flight: int = 0
    answered: int = 0
    refused: int = 0


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Who may come in, and how many at once.

    Args:
        api_key (`str`, *optional*):
            What clients have to send as their key. Without, everybody who reaches the server may ask.
        max_in_flight (`int`, *optional*, defaults to `64`):
            Requests that may wait or run; one more is told to come again.
        max_request_bytes (`int`, *optional*, defaults to `134217728`):
            Of the body of a request.
    """

    api_key: str | None = None
    max_in_flight: int = 64
    max_request_bytes: int = 128 * 2**20

    def refusal(self, request: Request, ledger: Ledger) -> RequestError | None:
        """Why a request does not come in; None if it does."""
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.api_key and not secrets.compare_digest(given.encode(), self.api_key.encode()):
            return RequestError("Expected the key of this server as `Authorization: Bearer ...`.", status=401)
        length = request.headers.get("Content-Length", "")
        if not length.isdigit():
            return RequestError("Expected the length of the request in `Content-Length`.", status=411)
        if int(length) > self.max_request_bytes:
            return RequestError(
                f"Expected a request of at most {self.max_request_bytes:,} bytes but this one has {int(length):,}. Send a "
                "shorter or smaller video.",
                status=413,
            )
        if ledger.in_flight >= self.max_in_flight:
            return RequestError(f"{ledger.in_flight} requests are waiting already. Come again in a while.", status=429)
        return None


def build_app(handler: StormChatHandler, gate: Gate | None = None) -> FastAPI:
    """Make the application.

    Args:
        handler ([`StormChatHandler`]):
            Answers chat completions.
        gate ([`Gate`], *optional*):
            Who may come in.

    Returns:
        `FastAPI`: With `/v1/chat/completions`, `/v1/models`, `/health` and a page for people at `/`.
    """
    gate, ledger = gate or Gate(), Ledger()
    app = FastAPI(title="storm serve", docs_url=None, redoc_url=None)
    app.add_exception_handler(StormError, _tell_storm_error)
    app.add_exception_handler(HTTPException, _tell_http_error)
    app.add_exception_handler(RequestValidationError, _tell_invalid_body)

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        request.state.request_id = request.headers.get(X_REQUEST_ID) or str(uuid.uuid4())
        if request.url.path != _ENDPOINT:
            return await call_next(request)
        if (refusal := gate.refusal(request, ledger)) is not None:
            ledger.refused += 1
            return _error(refusal.status, str(refusal))
        ledger.in_flight += 1
        return await _counted(call_next(request), ledger)

    @app.post(_ENDPOINT)
    async def chat_completions(request: Request, body: dict[str, Any]) -> Response:
        response = await handler.handle_request(body, request.state.request_id)
        response.headers[X_REQUEST_ID] = request.state.request_id
        return response

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        entry = {"id": handler.served.name, "object": "model", "created": int(ledger.started), "owned_by": "storm_hf"}
        return {"object": "list", "data": [entry]}

    @app.get("/health")
    def health() -> dict[str, Any]:
        return describe(handler, ledger)

    @app.get("/", response_class=HTMLResponse)
    def page(request: Request) -> str:
        known = describe(handler, ledger)
        rows = [(name.replace("_", " "), value) for name, value in known.items()]
        return render_page("storm_hf.serving", "health.html.j2", **known, rows=rows, url=str(request.base_url))

    return app


def describe(handler: StormChatHandler, ledger: Ledger) -> dict[str, Any]:
    """What a server says of itself."""
    model = handler.served.model
    return {
        "status": "ok",
        "model": handler.served.name,
        "backbone": model.backbone.config.model_type,
        "num_latents": model.config.num_latents,
        "device": str(model.device),
        "max_video_seconds": handler.door.max_video_seconds,
        "max_new_tokens": handler.max_new_tokens,
        "in_flight": ledger.in_flight,
        "answered": ledger.answered,
        "refused": ledger.refused,
        "seconds_up": int(time.time() - ledger.started),
    }


async def _counted(answering: Awaitable[Response], ledger: Ledger) -> Response:
    """Count a request as in flight until the last piece of its answer is sent."""
    try:
        response = await answering
    except BaseException:
        ledger.in_flight -= 1
        raise
    streamed = cast(StreamingResponse, response)  # what a middleware gets is one, whatever the route returned
    sending = streamed.body_iterator

    async def pieces() -> Any:
        try:
            async for piece in sending:
                yield piece
        finally:
            ledger.in_flight -= 1
            if response.status_code < 400:
                ledger.answered += 1
            else:
                ledger.refused += 1

    streamed.body_iterator = pieces()
    return streamed


def _error(status: int, message: str) -> JSONResponse:
    kind = "invalid_request_error" if status < 500 else "server_error"
    headers = {"Retry-After": "5"} if status == 429 else {}
    return JSONResponse({"error": {"message": message, "type": kind, "code": status}}, status, headers)


def _tell_storm_error(request: Request, error: Exception) -> JSONResponse:
    return _error(getattr(error, "status", 400), str(error))


def _tell_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, str(error.detail))


def _tell_invalid_body(request: Request, error: Exception) -> JSONResponse:
    return _error(422, "Expected a JSON object with `model` and `messages`.")
