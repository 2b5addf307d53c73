"""The page in a process of its own, and a browser that looks at it. The marker `browser` is for what uses them."""

import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError


STORM = [sys.executable, "-c", "from storm_hf.cli import main; main()"]
SECONDS_TO_START = 300  # also of any wait in the page, on a machine that is busy


@contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process until the block ends."""
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            process.terminate()


@contextmanager
def app_page(model: str, told: Path, env: dict[str, str] | None = None) -> Iterator[str]:
    """Run `storm app`, with what it says in the file `told`, and yield the address that it tells."""
    with told.open("w") as stdout, started([*STORM, "app", "--model", model], stdout=stdout, env=env) as process:
        for _ in alive(process):
            if address := told.read_text().strip():
                break
        yield address


@contextmanager
def script_page(script: Path, address: str, **options: Any) -> Iterator[None]:
    """Run a script that opens a page, and wait until it answers."""
    with started([sys.executable, str(script)], **options) as process:
        for _ in alive(process):
            if answers(address):
                break
        yield


def alive(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Wait in small steps, as long as there is something to wait for."""
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline:
        assert process.poll() is None, "the page ended before it began"
        yield
        time.sleep(0.2)
    raise AssertionError(f"no page after {SECONDS_TO_START} seconds")


def answers(address: str) -> bool:
    """Return True if there is a page at an address."""
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except URLError:
        return False


def open_at(browser: Any, address: str, **options: Any) -> Any:
    """Open the page in a context of its own, whose requests to elsewhere are noted in `page.strangers`."""
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(1000 * SECONDS_TO_START)
    page.strangers = []
    page.on("request", lambda request: _note(page.strangers, request.url))
    page.goto(address)
    page.get_by_role("button", name="Ask", exact=True).wait_for()
    return page


def ask_example(page: Any, number: int = 1) -> None:
    """Choose an example and ask it."""
    page.get_by_role("button", name=f"Example {number}").first.click()
    page.locator("video").first.wait_for()
    ask(page)


def ask(page: Any) -> None:
    """Press the button, and wait for the answer."""
    page.get_by_role("button", name="Ask", exact=True).click()
    page.locator("#replies .storm-answer").first.wait_for()
    page.get_by_role("button", name="Answer again").wait_for()


def answer_again(page: Any) -> str:
    """Press the other button, and return what stands there then."""
    page.get_by_role("button", name="Answer again").click()
    page.locator("#changed .storm-answer").first.wait_for()
    return str(page.locator("#changed").inner_text())


def _note(strangers: list[str], url: str) -> None:
    if not url.startswith(("http://127.0.0.1", "data:", "blob:")):
        strangers.append(url)
