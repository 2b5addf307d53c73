"""The page as people meet it: a server process, a client over HTTP, and a real browser."""

import os
import re
import subprocess
import sys
import time

import pytest
from tests.app.test_desk import QUESTION

from storm_hf.app.desk import EVERY_STEP, SAME_STEP


pytestmark = pytest.mark.browser
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
NARROW = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def address(checkpoint, tmp_path_factory):
    """`storm app` in a process of its own."""
    told = tmp_path_factory.mktemp("told") / "stdout"
    command = [sys.executable, "-c", "from storm_hf.cli import main; main()", "app", "--model", str(checkpoint)]
    with told.open("w") as stdout, subprocess.Popen(command, stdout=stdout) as process:
        deadline = time.monotonic() + 120
        while not told.read_text().strip():
            assert process.poll() is None, "the page ended before it began"
            assert time.monotonic() < deadline, "no address after two minutes"
            time.sleep(0.2)
        yield told.read_text().strip()
        process.terminate()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, address):
    """Opens the page in a context of its own, and refuses whatever is not on this machine."""
    contexts = []

    def opened(**options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.strangers = []
        page.on("request", lambda request: _note(page.strangers, request.url))
        page.goto(address)
        page.get_by_role("button", name="Ask", exact=True).wait_for()
        return page

    yield opened
    for context in contexts:
        context.close()


def _note(strangers, url):
    if not url.startswith(("http://127.0.0.1", "data:", "blob:")):
        strangers.append(url)


@pytest.mark.filterwarnings("ignore")  # of the client's own dependencies
def test_client_asks_and_changes_over_http(address, stranger):
    from gradio_client import Client, handle_file

    client = Client(address, verbose=False)
    notice, replies = client.predict(handle_file(str(stranger)), QUESTION, "left, right", api_name="/ask")
    assert "its answer about a real clip is a guess" in notice
    assert "6 forward passes" in replies
    notice, replies = client.predict("zeros", EVERY_STEP, SAME_STEP, None, api_name="/change")
    assert not notice
    assert "With your change" in replies


def test_uploaded_clip_is_answered_and_nothing_is_fetched_from_elsewhere(open_page, stranger):
    page = open_page()
    page.locator("input[type=file]").first.set_input_files(stranger)
    page.locator("video").first.wait_for()
    page.get_by_label("Question").fill(QUESTION)
    page.get_by_role("button", name="Ask", exact=True).click()
    page.locator("#replies .storm-answer").first.wait_for()
    assert page.locator("#replies .storm-steps li").count() == 4
    assert "guess" in page.locator("#notice").inner_text()
    assert page.strangers == []


def test_keyboard_alone_asks_an_example_and_changes_its_thoughts(open_page):
    page = open_page()
    _tab_to(page, "Example 2")
    page.keyboard.press("Enter")
    page.locator("video").first.wait_for()
    _tab_to(page, "Ask")
    page.keyboard.press("Enter")
    page.locator("#replies .storm-answer").first.wait_for()
    _tab_to(page, "Answer again")
    page.keyboard.press("Enter")
    page.locator("#changed .storm-answer").first.wait_for()
    assert re.search("stays the same|is another", page.locator("#changed").inner_text())


def _tab_to(page, name, limit=60):
    for _ in range(limit):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.innerText || ''").strip() == name:
            return
    raise AssertionError(f"{name} cannot be reached with the keyboard")


def test_narrow_window_does_not_scroll_sideways(open_page):
    page = open_page(viewport=NARROW)
    page.get_by_role("button", name="Example 1").first.click()
    page.locator("video").first.wait_for()
    page.get_by_role("button", name="Ask", exact=True).click()
    page.locator("#replies .storm-answer").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]


def test_dark_mode_is_light_on_dark(open_page):
    page = open_page(color_scheme="dark")
    page.get_by_role("button", name="Ask", exact=True).click()
    notice = page.locator("#notice .storm-notice")
    notice.wait_for()
    assert "no clip yet" in notice.inner_text()
    ink, paper = notice.evaluate("e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor]")
    assert _brightness(ink) > 180
    assert _brightness(paper) < 80


def _brightness(colour):
    return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3
