import sys

import jinja2
import pytest

from storm_hf.errors import DependencyError
from storm_hf.reporting import render_page
from storm_hf.reporting.page import count, duration, percent


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The name of a package with one template of its own."""
    folder = tmp_path / "a_package_with_a_page"
    (folder / "templates").mkdir(parents=True)
    (folder / "__init__.py").touch()
    page = '{% extends "page.html.j2" %}{% block content %}<p>{{ words }}</p>{% endblock %}'
    (folder / "templates" / "page_of_it.html.j2").write_text(page)
    monkeypatch.syspath_prepend(tmp_path)
    yield folder.name
    sys.modules.pop(folder.name, None)


def test_page_of_any_package_brings_the_style_sheet(package):
    page = render_page(package, "page_of_it.html.j2", words="hello")
    assert "<p>hello</p>" in page
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_values_are_escaped(package):
    assert "<p>&lt;b&gt;</p>" in render_page(package, "page_of_it.html.j2", words="<b>")


def test_value_that_is_missing_is_an_error(package):
    with pytest.raises(jinja2.UndefinedError, match="words"):
        render_page(package, "page_of_it.html.j2")


def test_missing_jinja2_names_the_extra(package, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(DependencyError, match=r"`jinja2` is missing.*\[demo\]"):
        render_page(package, "page_of_it.html.j2", words="hello")


@pytest.mark.parametrize(
    ("share", "words"), [(0, "0%"), (1, "100%"), (0.25, "25%"), (0.9961, "99.6%"), (0.9999, "99.9%"), (1e-5, "0.1%")]
)
def test_percentage_never_rounds_to_all_or_nothing(share, words):
    assert percent(share) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0034, "3.4 ms"), (0.9999, "1.0 s"), (4.21, "4.2 s"), (48.2, "48 s"), (492.3, "8 min 12 s"), (120, "2 min")],
)
def test_time_is_written_as_people_say_it(seconds, words):
    assert duration(seconds).replace("\N{NO-BREAK SPACE}", " ") == words


@pytest.mark.parametrize(
    ("number", "words"),
    [(8.0, "8"), (13.5, "13.5"), (4000, "4,000"), (921_344, "0.92 million"), (7e9, "7000 million")],
)
def test_count_shows_the_digits_that_matter(number, words):
    assert count(number).replace("\N{NO-BREAK SPACE}", " ") == words
