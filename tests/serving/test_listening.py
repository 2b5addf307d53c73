"""A server without free file descriptors: it logs one line, and answers again when there are some."""

import asyncio
import errno
import logging
import os
import socket
import time
from urllib.parse import urlsplit

import psutil
import pytest
from tests.faults.linux import limit_files

from storm_hf.serving.server import ConnectionFaults


_SPARE_FILES = 1024
_ATTEMPTS_SECONDS = 2.5  # asyncio tries again each second
_LONGEST_LOG = 2000  # characters


def health(served, seconds):
    """Ask for the server's state over a new connection, which is closed afterwards."""
    address = urlsplit(served.url)
    with socket.create_connection((address.hostname, address.port), timeout=seconds) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        return connection.recv(100).split(b"\r\n")[0]


def wait_for_last_connection(served):
    """Wait until the server has closed the connections that clients keep, since each that it closes makes room for one."""
    process, end = psutil.Process(served.process_id), time.monotonic() + 30
    while any(each.status == psutil.CONN_ESTABLISHED for each in process.net_connections("tcp")):
        assert time.monotonic() < end
        time.sleep(0.1)


def test_server_without_file_descriptors_logs_one_line_and_answers_when_it_has_some(served):
    wait_for_last_connection(served)
    before = len(served.log.read_text())
    limit_files(served.process_id, 0)
    try:
        with pytest.raises(TimeoutError):
            health(served, _ATTEMPTS_SECONDS)
    finally:
        limit_files(served.process_id, _SPARE_FILES)
    assert health(served, 30) == b"HTTP/1.1 200 OK"
    logged = served.log.read_text()[before:]
    assert logged.count("Too many open files") == 1
    assert len(logged) < _LONGEST_LOG


@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def test_refused_connections_are_one_line_a_minute(loop, caplog, monkeypatch):
    seconds = [1000.0]
    monkeypatch.setattr(loop, "time", lambda: seconds[0])
    handle, refused = ConnectionFaults(), OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    for now in (1000.0, 1001.0, 1059.0, 1060.0):
        seconds[0] = now
        handle(loop, {"message": "accept", "exception": refused, "socket": None})
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert "Too many open files" in caplog.text


@pytest.mark.parametrize(
    "context",
    [
        {"message": "a task failed", "exception": ValueError("no")},
        {"message": "a socket failed", "exception": ValueError("no"), "socket": None},
        {"message": "a task without files", "exception": OSError(errno.EMFILE, "no files")},
    ],
)
def test_other_errors_of_the_loop_are_logged_each_time(loop, caplog, context):
    handle = ConnectionFaults()
    handle(loop, context)
    handle(loop, context)
    assert [record.name for record in caplog.records] == ["asyncio"] * 2
