"""ASGI endpoint `/v1/chat/completions`: admission, body, answer, errors.

One object per server. The endpoint is found by its route alone, so no path or `Host` goes around its key.
"""

import asyncio
import logging
import re
import uuid
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Event
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Scope

from storm_hf.serving.chat import ChatModel, Choice, Prompt
from storm_hf.serving.limits import ClientGoneError, Receive, RequestLimiter, ServerStats
from storm_hf.serving.replies import Completion, as_reply, encode, event
from storm_hf.serving.request import ChatCompletionRequest, parse_request


_NUM_LATENTS_HEADER = "X-Storm-Num-Latents"
_REQUEST_ID_HEADER = "X-Request-ID"
_REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
_DRAIN_SECONDS = 5.0

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
logger = logging.getLogger(__name__)


class ChatEndpoint:
    """ASGI application of one route.

    Args:
        chat ([`ChatModel`]):
            Answers.
        limiter ([`RequestLimiter`]):
            Admits requests.
        stats ([`ServerStats`]):
            Counts of the server.
    """

    def __init__(self, chat: ChatModel, limiter: RequestLimiter, stats: ServerStats) -> None:
        self.chat, self.limiter, self.stats = chat, limiter, stats
        # All generation runs on one thread, as CUDA graphs of a compiled model need.
        self._generating = ThreadPoolExecutor(1, thread_name_prefix="generate")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. No error leaves this method, so the connection can be used again."""
        exchange = Exchange(scope, receive, send, self.limiter.send_seconds)
        try:
            request = await self._receive(exchange)
            with self.limiter.place(self.stats), exchange.watched_for_disconnect():
                await self._answer(request, exchange)
            self.stats.answered += 1
        except ClientGoneError:
            self.stats.cancelled += 1
        except Exception as error:
            await self._reply_with_error(error, exchange)

    async def _receive(self, exchange: "Exchange") -> ChatCompletionRequest:
        self.limiter.check(exchange.headers, self.stats)
        body = await self.limiter.read_body(exchange.receive, self.stats)
        exchange.is_received = True
        return await asyncio.to_thread(parse_request, body)

    async def _answer(self, request: ChatCompletionRequest, exchange: "Exchange") -> None:
        prompt = await asyncio.to_thread(self.chat.prepare, request)
        has_usage = request.stream_options is not None and request.stream_options.include_usage
        completion = Completion(exchange.request_id, self.chat.name, prompt.num_tokens, has_usage)
        exchange.own_headers = {_NUM_LATENTS_HEADER: str(prompt.latents.num_latents)}
        pieces: asyncio.Queue[tuple[int, str] | None] = asyncio.Queue()
        generating = self._generate(prompt, pieces, exchange.cancelled)
        if not request.stream:
            await exchange.send_json(200, completion.complete(await exchange.unless_gone(generating)))
            return
        try:
            await self._stream(generating, pieces, completion, exchange)
        finally:  # a place is held until the thread is free of the request
            exchange.cancelled.set()
            await asyncio.wait([generating])

    def _generate(
        self, prompt: Prompt, pieces: "asyncio.Queue[tuple[int, str] | None]", cancelled: Event
    ) -> asyncio.Future[list[Choice]]:
        loop = asyncio.get_running_loop()

        def on_text(index: int, piece: str) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, (index, piece))

        generating = loop.run_in_executor(self._generating, self.chat.answer, prompt, on_text, cancelled)
        generating.add_done_callback(lambda _: pieces.put_nowait(None))
        return generating

    async def _stream(
        self,
        generating: asyncio.Future[list[Choice]],
        pieces: "asyncio.Queue[tuple[int, str] | None]",
        completion: Completion,
        exchange: "Exchange",
    ) -> None:
        begun: set[int] = set()
        while (item := await pieces.get()) is not None:
            index, text = item
            await self._begin(index, begun, completion, exchange)
            await exchange.send_event(completion.chunk(index, {"content": text}))
        choices = await exchange.unless_gone(generating)
        for index in range(len(choices)):
            await self._begin(index, begun, completion, exchange)
        await exchange.send_event(completion.ends(choices), is_last=True)

    async def _begin(self, index: int, begun: set[int], completion: Completion, exchange: "Exchange") -> None:
        """Send the first chunk of a choice, once."""
        if index not in begun:
            begun.add(index)
            await exchange.send_event(completion.chunk(index, {"role": "assistant", "content": "", "refusal": None}))

    async def _reply_with_error(self, error: Exception, exchange: "Exchange") -> None:
        status, body = as_reply(error)
        if status < 500:
            self.stats.refused += 1
        else:
            self.stats.failed += 1
            logger.error("A chat completion failed.", exc_info=error)
        with suppress(ClientGoneError):
            if exchange.is_started:
                await exchange.send_event(event(body), is_last=True)
            else:
                await exchange.send_json(status, body)


class Exchange:
    """One request and its response.

    Args:
        scope (`dict`):
            ASGI scope of the request.
        receive (`Callable`):
            ASGI channel of the request.
        send (`Callable`):
            ASGI channel of the response.
        send_seconds (`float`):
            Time for the client to take a piece of the response.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, send_seconds: float) -> None:
        self.headers = Headers(scope=scope)
        given = self.headers.get(_REQUEST_ID_HEADER, "")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        self.own_headers: dict[str, str] = {}
        self.cancelled = Event()
        self.is_gone = self.is_received = self.is_started = False
        self.receive, self._send, self._send_seconds = receive, send, send_seconds

    @contextmanager
    def watched_for_disconnect(self) -> Iterator[None]:
        """Cancel generation as soon as the client goes away during the block."""
        watching = asyncio.ensure_future(self._watch())
        try:
            yield
        finally:
            watching.cancel()

    async def _watch(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.is_gone = True
        self.cancelled.set()

    async def unless_gone(self, generating: asyncio.Future[list[Choice]]) -> list[Choice]:
        """Wait for the choices.

        Raises:
            ClientGoneError: If the client went away meanwhile.
        """
        choices = await generating
        if self.is_gone:
            raise ClientGoneError
        return choices

    async def send_json(self, status: int, body: dict[str, Any]) -> None:
        """Send a whole response. The rest of an unread body is discarded, so that the client gets to read the response."""
        content = encode(body)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(content))}
        if status == 429:
            headers["Retry-After"] = "5"
        if not self.is_received:
            headers["Connection"] = "close"
        await self._start(status, headers)
        await self._send_body(content, more=not self.is_received)
        if not self.is_received:
            await self._drain()
            await self._send_body(b"", more=False)

    async def send_event(self, content: bytes, is_last: bool = False) -> None:
        """Send events of a stream; the first call begins it."""
        if not self.is_started:
            await self._start(200, {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"})
        await self._send_body(content, more=not is_last)

    async def _start(self, status: int, headers: dict[str, str]) -> None:
        self.is_started = True
        named = {**headers, **self.own_headers, _REQUEST_ID_HEADER: self.request_id}
        raw = [(name.lower().encode(), value.encode()) for name, value in named.items()]
        await self._within_time({"type": "http.response.start", "status": status, "headers": raw})

    async def _send_body(self, content: bytes, more: bool) -> None:
        await self._within_time({"type": "http.response.body", "body": content, "more_body": more})

    async def _within_time(self, message: dict[str, Any]) -> None:
        if self.is_gone:
            raise ClientGoneError
        try:
            async with asyncio.timeout(self._send_seconds):
                await self._send(message)
        except TimeoutError as error:
            raise ClientGoneError from error

    async def _drain(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while (message := await self.receive())["type"] == "http.request" and message.get("more_body", False):
                    pass
