"""The README and the site in a browser, wide and narrow: nothing runs out of its box, and search works from a file."""

import pytest
from markdown_it import MarkdownIt
from tests.docs.pages import ROOT


pytestmark = pytest.mark.browser
SITE = ROOT / "build" / "site"  # `make test-browser` builds it
WIDTHS = (1280, 400)
OVERFLOW = "() => document.documentElement.scrollWidth - window.innerWidth"
OUTSIDE = """() => {  // boxes that are cut off: wider than the page, and in nothing that scrolls
    const scrolls = element => element && (getComputedStyle(element).overflowX !== 'visible' || scrolls(element.parentElement));
    return [...document.querySelectorAll('pre, table, img')]
        .filter(element => element.getBoundingClientRect().right > window.innerWidth + 1)
        .filter(element => !scrolls(element.parentElement))
        .map(element => element.outerHTML.slice(0, 80));
}"""
HOST_STYLE = """
    body { font: 16px/1.5 sans-serif; margin: 0 auto; max-width: 1012px; padding: 16px; overflow-wrap: break-word }
    pre, table { display: block; overflow: auto } img { max-width: 100% }
"""  # what hosts of repositories give to every README


@pytest.fixture(params=WIDTHS)
def page(browser, request):
    opened = browser.new_page(viewport={"width": request.param, "height": 900})
    yield opened
    opened.close()


def pages_of_the_site():
    return sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html"))


def test_site_is_built():
    assert "index.html" in pages_of_the_site(), "run: make docs"


def test_nothing_runs_out_of_a_page_and_nothing_is_fetched(page):
    fetched = []
    page.on("request", lambda request: fetched.append(request.url))
    cut = {}
    for name in pages_of_the_site():
        page.goto((SITE / name).as_uri())
        if page.evaluate(OVERFLOW) > 0 or page.evaluate(OUTSIDE):
            cut[name] = (page.evaluate(OVERFLOW), page.evaluate(OUTSIDE))
    assert cut == {}
    assert [url for url in fetched if not url.startswith(("file:", "data:", "about:"))] == []


def test_commands_of_the_guides_fit_into_a_wide_window(browser):
    page = browser.new_page(viewport={"width": WIDTHS[0], "height": 900})
    wide, count = {}, 0
    for guide in sorted((ROOT / "docs").glob("*.md")):
        page.goto((SITE / f"{guide.stem}.html").as_uri())
        page.evaluate("document.querySelectorAll('.language-bash code').forEach(code => code.dataset.command = '')")
        count += page.locator("[data-command]").count()
        wide[guide.stem] = page.eval_on_selector_all(
            "[data-command]",
            "found => found.filter(code => code.scrollWidth > code.clientWidth + 1).map(code => code.innerText)",
        )
    assert count > 10
    assert {guide: commands for guide, commands in wide.items() if commands} == {}


def test_search_works_where_the_site_is_opened_as_a_file(browser):
    page = browser.new_page(viewport={"width": WIDTHS[0], "height": 900})
    page.goto((SITE / "reference" / "model.html").as_uri())
    page.click(".md-search__input")
    page.wait_for_function("() => typeof __index === 'object'")
    page.keyboard.type("bottleneck", delay=20)
    page.wait_for_selector(".md-search-result__link")
    page.click(".md-search-result__link >> nth=0")
    page.wait_for_url(lambda url: "model.html" not in url)
    assert "bottleneck" in page.inner_text("article").lower()


def test_pages_lead_to_the_next_and_the_previous_one(browser):
    page = browser.new_page()
    page.goto((SITE / "ask.html").as_uri())
    links = page.eval_on_selector_all(".md-footer__link", "found => found.map(link => link.getAttribute('href'))")
    assert links == ["quickstart.html", "train.html"]


def test_nothing_runs_out_of_the_readme(page, tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", f"]({(ROOT / 'docs').as_uri()}/")
    body = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    (tmp_path / "readme.html").write_text(f"<meta charset='utf-8'><style>{HOST_STYLE}</style>{body}", encoding="utf-8")
    page.goto((tmp_path / "readme.html").as_uri())
    assert page.locator("table").count() >= 4
    assert page.evaluate("[...document.images].every(image => image.naturalWidth)")
    assert (page.evaluate(OVERFLOW), page.evaluate(OUTSIDE)) == (0, [])
