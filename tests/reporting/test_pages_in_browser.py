"""The pages that runs write, as people open them: from the disk, wide and narrow, light and dark, with the keyboard alone."""

import pytest
from tests.demo.demo_story import made_up_report, made_up_story
from tests.diagnostics.puppet import make_puppet
from tests.evaluation.results.logged import mvbench, write_samples

from storm_hf.demo.report import write_report
from storm_hf.diagnostics.diagnosis import diagnose
from storm_hf.diagnostics.page import write_diagnosis
from storm_hf.evaluation.results import report_run


pytestmark = pytest.mark.browser
PAGES = ("demo", "evaluation", "diagnosis")
PAGES_WITH_CHARTS = ("demo", "diagnosis")
NARROW = {"width": 390, "height": 844}
BROKEN = """async () => {
    const isBroken = async image => {
        image.loading = 'eager';
        return image.decode().then(() => false, () => true);
    };
    return (await Promise.all([...document.images].map(isBroken))).filter(Boolean).length;
}"""
COVERED = """() => [...document.querySelectorAll('svg.chart')].flatMap(chart => {
    const texts = [...chart.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()]);
    const cover = (one, other) =>
        Math.min(one.right, other.right) - Math.max(one.left, other.left) > 1 &&
        Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top) > 3;  // letters are lower than their boxes
    return texts.flatMap(([one, box], place) =>
        texts.slice(place + 1).filter(([, other]) => cover(box, other)).map(([other]) => [one, other]));
})"""
LEAST_CONTRAST = 4.5  # of text, by the Web Content Accessibility Guidelines 2.2, criterion 1.4.3
CONTRAST = """() => {
    const light = color => {
        const parts = color.match(/[\\d.]+/g).slice(0, 3).map(part => part / 255)
            .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
    };
    const behind = element => {
        const color = getComputedStyle(element).backgroundColor;
        return color.endsWith(', 0)') && element.parentElement ? behind(element.parentElement) : color;
    };
    return [...document.querySelectorAll('p, td, th, li, h1, h2, h3, figcaption, code')]
        .filter(element => element.offsetParent && element.innerText.trim())
        .map(element => {
            const [one, other] = [light(getComputedStyle(element).color), light(behind(element))];
            return [(Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05), element.innerText.slice(0, 40)];
        });
}"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """One page of each kind, by its name."""
    folder = tmp_path_factory.mktemp("pages")
    for variant in ("storm", "direct"):
        rows = [(mvbench(), "(A)"), (mvbench("b.mp4"), "(B)")]
        write_samples(folder / "evaluation", variant, "mvbench_action_count", rows)
    report_run(folder / "evaluation", num_resamples=100)
    puppet = make_puppet(folder / "puppet")
    with puppet.thinking(uses_latents=True):
        found = diagnose(puppet.thinker.model, puppet.thinker.processor, puppet.questions)
    return {
        "demo": write_report(folder / "demo", made_up_report(), made_up_story(folder / "clips", num_examples=2)),
        "evaluation": folder / "evaluation" / "report.html",
        "diagnosis": write_diagnosis(folder / "diagnosis", found),
    }


@pytest.fixture
def open_page(browser, pages):
    """Opens a page, and notes what it complains of and what it fetches."""
    contexts = []

    def opened(name, **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.troubles = []
        page.on("console", lambda message: message.type == "error" and page.troubles.append(message.text))
        page.on("pageerror", lambda error: page.troubles.append(str(error)))
        page.on("request", lambda request: _note(page.troubles, request.url))
        page.goto(pages[name].as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()


def _note(troubles, url):
    if not url.startswith(("file://", "data:", "blob:")):
        troubles.append(url)


@pytest.mark.parametrize("name", PAGES)
def test_page_opens_whole_and_fetches_nothing(name, open_page):
    page = open_page(name)
    assert page.troubles == []
    assert page.evaluate(BROKEN) == 0
    assert page.locator("h1").count() == 1
    assert page.locator("html").get_attribute("lang") == "en"


@pytest.mark.parametrize("name", PAGES)
def test_narrow_page_is_not_wider_than_its_window(name, open_page):
    page = open_page(name, viewport=NARROW)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= NARROW["width"]


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", PAGES_WITH_CHARTS)
def test_words_of_a_chart_do_not_cover_each_other(name, width, open_page):
    page = open_page(name, viewport={"width": width, "height": 844})
    page.evaluate("() => document.querySelectorAll('details').forEach(folded => folded.open = true)")
    assert page.locator("svg.chart text").count() > 4
    assert page.evaluate(COVERED) == []


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(name, scheme, open_page):
    page = open_page(name, color_scheme=scheme)
    contrasts = page.evaluate(CONTRAST)
    assert len(contrasts) > 10
    assert [each for each in contrasts if each[0] < LEAST_CONTRAST] == []


@pytest.mark.parametrize("name", PAGES)
def test_tables_that_scroll_are_reached_by_the_keyboard(name, open_page):
    page = open_page(name, viewport=NARROW)
    page.evaluate("() => document.querySelectorAll('details').forEach(folded => folded.open = true)")
    wanted = page.evaluate("() => document.querySelectorAll('.scroll').length")
    reached = set()
    for _ in range(200):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("() => [...document.querySelectorAll('.scroll')].indexOf(document.activeElement)"))
    assert reached - {-1} == set(range(wanted))
