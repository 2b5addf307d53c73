"""The page as people meet it: a server process, a client over HTTP, and a real browser."""

import re

import pytest
from PIL import Image
from tests.app.browsing import answer_again, ask, ask_example
from tests.app.pictures import LARGEST_BYTES, NARROW, change_for, take_pictures
from tests.app.test_handlers import QUESTION

from storm_hf.app.handlers import EVERY_STEP, SAME_STEP


pytestmark = pytest.mark.browser


@pytest.mark.filterwarnings("ignore")  # of the client's own dependencies
def test_client_asks_and_changes_over_http(address, stranger):
    from gradio_client import Client, handle_file

    client = Client(address, verbose=False)
    notice, replies = client.predict(handle_file(str(stranger)), QUESTION, "left, right", api_name="/ask")
    assert "its answer about a real clip is a guess" in notice
    assert "5 forward passes" in replies
    notice, replies = client.predict("zeros", EVERY_STEP, SAME_STEP, None, api_name="/change")
    assert not notice
    assert "With your change" in replies


def test_uploaded_clip_is_answered_and_nothing_is_fetched_from_elsewhere(open_page, stranger):
    page = open_page()
    page.locator("input[type=file]").first.set_input_files(stranger)
    page.locator("video").first.wait_for()
    page.get_by_label("Question").fill(QUESTION)
    ask(page)
    assert page.locator("#replies .storm-steps li").count() == 4
    assert "guess" in page.locator("#notice").inner_text()
    assert page.strangers == []
    assert "common." not in page.locator("body").inner_text()  # a key where a word should be


def test_clip_cannot_be_cut_with_a_program_from_elsewhere(open_page):
    page = open_page()
    ask_example(page)
    assert [button.is_visible() for button in page.locator("button[aria-label*='Trim']").all()] == [False]


def test_keyboard_alone_asks_an_example_and_changes_its_thoughts(open_page):
    page = open_page()
    _tab_to(page, "Example 2")
    page.keyboard.press("Enter")
    page.locator("video").first.wait_for()
    _tab_to(page, "Question")
    page.keyboard.press("Enter")
    page.locator("#replies .storm-answer").first.wait_for()
    _tab_to(page, "another of its steps")
    page.keyboard.press("Space")
    page.locator("#source").wait_for()
    _tab_to(page, "Taken from")
    _tab_to(page, "Answer again")
    page.keyboard.press("Enter")
    page.locator("#changed .storm-answer").first.wait_for()
    assert page.locator("#changed .storm-replaced").count() == 4
    assert re.search("stays the same|is another", page.locator("#changed").inner_text())


def _tab_to(page, name, limit=60):
    """Press Tab until what has the focus is called so."""
    for _ in range(limit):
        page.keyboard.press("Tab")
        if name in page.evaluate(_NAMES_OF_FOCUS):
            return
    raise AssertionError(f"{name} cannot be reached with the keyboard")


_NAMES_OF_FOCUS = """() => {
    const focus = document.activeElement;
    const labels = [...(focus.labels || [])].map(label => label.innerText.trim());
    return [focus.innerText?.trim(), focus.getAttribute("aria-label"), ...labels];
}"""


def test_fields_stand_there_when_they_are_needed(open_page):
    page = open_page()
    assert page.get_by_role("heading", name="Change what it thinks").count() == 0
    ask_example(page)
    assert page.locator("#source").count() == 0
    page.get_by_label("another of its steps").check()
    page.locator("#source").wait_for()
    assert page.locator("#source input").input_value() == "step 1"
    assert page.get_by_text("Another clip", exact=True).count() == 0
    assert re.search("stays the same|is another", change_for(page, "Example 2"))


def test_next_question_takes_the_changes_of_the_last_one_away(open_page):
    page = open_page()
    ask_example(page, 1)
    assert "With your change" in answer_again(page)
    ask_example(page, 2)
    page.locator("#changed .storm-answer").first.wait_for(state="detached")


def test_narrow_window_does_not_scroll_sideways(open_page):
    page = open_page(viewport={"width": 360, "height": 780})
    ask_example(page)
    change_for(page, "Example 2")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_dark_mode_is_light_on_dark(open_page):
    page = open_page(color_scheme="dark")
    page.get_by_role("button", name="Ask", exact=True).click()
    notice = page.locator("#notice .storm-notice")
    notice.wait_for()
    assert "no clip yet" in notice.inner_text()
    assert _contrast(notice) > 7


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_small_print_and_buttons_can_be_read(open_page, scheme):
    page = open_page(color_scheme=scheme)
    ask_example(page)
    assert _contrast(page.locator("#replies small").first) > 4.5
    assert _contrast(page.get_by_role("button", name="Answer again")) > 4.5


def _contrast(element):
    """Contrast of text and background after the guidelines of WCAG, 1 to 21."""
    ink, paper = (_luminance(colour) for colour in element.evaluate(_INK_AND_PAPER))
    return (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05)


def _luminance(colour):
    parts = [float(part) / 255 for part in re.findall(r"[\d.]+", colour)[:3]]
    red, green, blue = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


_INK_AND_PAPER = """element => {
    const colour = (of, name) => getComputedStyle(of)[name];
    let under = element;
    while (/, 0\\)$/.test(colour(under, "backgroundColor"))) under = under.parentElement;
    return [colour(element, "color"), colour(under, "backgroundColor")];
}"""


def test_pictures_for_the_docs_are_small_files(browser, address, tmp_path):
    pictures = take_pictures(browser, address, tmp_path, donor="Example 2")
    assert [picture.name for picture in pictures] == ["app.png", "app_changed.png", "app_narrow.png"]
    assert max(picture.stat().st_size for picture in pictures) < LARGEST_BYTES
    with Image.open(pictures[2]) as narrow:
        assert narrow.width == NARROW["width"]
