"""Listening to connections, also while the process has no free file descriptors."""

import asyncio
import logging
import socket
from typing import Any

import uvicorn

from storm_hf.errors import is_machine_fault


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
