"""Limits of the server: authentication, concurrency, and the size and time of a request."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import Headers

from storm_hf.errors import RequestError


Receive = Callable[[], Awaitable[Any]]


class ClientGoneError(Exception):
    """The client closed the connection, or takes no more of its answer."""


@dataclass
class ServerStats:
    """Counts of a server since its start.

    Args:
        started (`float`):
            Time of the start, in seconds since 1970.
        in_flight (`int`):
            Requests that wait or run.
        answered (`int`):
            Requests that were answered.
        refused (`int`):
            Requests that were refused with a 4xx.
        failed (`int`):
            Requests that ended in a 5xx.
        cancelled (`int`):
            Requests whose client went away.
        buffered_bytes (`int`):
            Bytes of bodies that are being received.
    """

    started: float = field(default_factory=time.time)
    in_flight: int = 0
    answered: int = 0
    refused: int = 0
    failed: int = 0
    cancelled: int = 0
    buffered_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class RequestLimiter:
    """Admission of requests.

    Args:
        api_key (`str`, *optional*):
            Key that clients have to send. By default every client is answered.
        max_in_flight (`int`, *optional*, defaults to `64`):
            Requests that may wait or run. Further ones are refused with status 429.
        max_request_bytes (`int`, *optional*, defaults to `134217728`):
            Size of a request's body.
        max_buffered_bytes (`int`, *optional*, defaults to `1073741824`):
            Size of all bodies that are being received at once.
        body_seconds (`float`, *optional*, defaults to `60`):
            Time for a body to arrive.
        send_seconds (`float`, *optional*, defaults to `60`):
            Time for a client to take a piece of its answer.
    """

    api_key: str | None = None
    max_in_flight: int = 64
    max_request_bytes: int = 128 * 2**20
    max_buffered_bytes: int = 2**30
    body_seconds: float = 60.0
    send_seconds: float = 60.0

    def check(self, headers: Headers, stats: ServerStats) -> None:
        """Check the headers of a request, before its body is received.

        Raises:
            RequestError: If the key or the length is missing or wrong, or if all places are taken.
        """
        scheme, _, given = headers.get("Authorization", "").strip().partition(" ")
        given = given.strip() if scheme.lower() == "bearer" else ""  # in any case (RFC 9110, section 11.1)
        if self.api_key and not secrets.compare_digest(given.encode(), self.api_key.encode()):
            raise RequestError("Expected the key of this server as `Authorization: Bearer ...`.", 401)
        length = headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal() and len(length) < 16):
            raise RequestError("Expected the length of the request in `Content-Length`.", 411)
        if int(length) > self.max_request_bytes:
            raise RequestError(
                f"Expected a request of at most {self.max_request_bytes:,} bytes but this one has {int(length):,}. Send a "
                "shorter or smaller video.",
                413,
            )
        self._check_places(stats)

    async def read_body(self, receive: Receive, stats: ServerStats) -> bytes:
        """Receive the body of a request. It takes no place meanwhile.

        Raises:
            RequestError: If it does not arrive in time, or if too much is being received.
            ClientGoneError: If the client goes away.
        """
        body = bytearray()
        try:
            async with asyncio.timeout(self.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGoneError
                    body += message.get("body", b"")
                    stats.buffered_bytes += len(message.get("body", b""))
                    if stats.buffered_bytes > self.max_buffered_bytes:
                        raise RequestError("Too many requests are being received. Try again later.", 429)
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError as error:
            raise RequestError(
                f"Expected the body of the request within {self.body_seconds:g} seconds. Send a smaller one.", 408
            ) from error
        finally:
            stats.buffered_bytes -= len(body)

    @contextmanager
    def place(self, stats: ServerStats) -> Iterator[None]:
        """Hold a place for as long as the block runs.

        Raises:
            RequestError: If all places are taken.
        """
        self._check_places(stats)
        stats.in_flight += 1
        try:
            yield
        finally:
            stats.in_flight -= 1

    def _check_places(self, stats: ServerStats) -> None:
        if stats.in_flight >= self.max_in_flight:
            raise RequestError(f"{stats.in_flight} requests are waiting already. Try again later.", 429)
