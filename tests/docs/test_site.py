"""Checks beyond a strict build of the site, without the generator: pages, links and names of the reference."""

import importlib
import inspect
import re
import runpy

import pytest
import yaml
from tests.docs.pages import ROOT


DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
MADE = list(runpy.run_path(str(DOCS / "generated.py"))["PAGES"])
REFERENCE = [name for page in PAGES for name in re.findall(r"^::: (\S+)$", page.read_text(), flags=re.MULTILINE)]
WHOLE = [  # packages with all of their public names
    name
    for page in PAGES
    for name in re.findall(r"^::: (\S+)\n    options: .*filters: public", page.read_text(), flags=re.MULTILINE)
]


def pages_of(navigation):
    for entry in navigation:
        for target in entry.values():
            yield from [target] if isinstance(target, str) else pages_of(target)


def anchors_of(page):
    titles = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


def test_every_page_is_in_the_navigation():
    assert sorted(pages_of(SITE["nav"])) == sorted([*MADE, *(page.relative_to(DOCS).as_posix() for page in PAGES)])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_pages_and_titles_that_exist(page):
    for target in re.findall(r"\]\((?!https?://)([^)]+)\)", page.read_text()):
        name, _, title = target.partition("#")
        linked = page.parent / name if name else page
        assert linked.is_file(), target
        assert not title or title in anchors_of(linked), target


@pytest.mark.parametrize("name", REFERENCE)
def test_name_of_the_reference_is_documented(name):
    module, _, member = name.rpartition(".")
    found = getattr(importlib.import_module(module), member, None) or importlib.import_module(name)
    assert inspect.getdoc(found)


def test_public_names_are_in_the_reference():
    public = (ROOT / "tests" / "public_names.txt").read_text().split()
    shown = {entry.rpartition(".")[2] for entry in REFERENCE}
    shown.update(*(importlib.import_module(name).__all__ for name in WHOLE))
    assert [name for name in public if name.rpartition(".")[2] not in shown] == []


def test_packages_that_the_reference_shows_whole_name_what_is_public():
    assert len(WHOLE) >= 5
    assert [name for name in WHOLE if not importlib.import_module(name).__all__] == []


def test_nothing_is_fetched_when_a_page_is_opened():
    assert SITE["theme"]["font"] is False
    assert [(DOCS / script).is_file() for script in SITE["extra"]["polyfills"]] == [True]
    assert "iframe-worker" in SITE["extra"]["polyfills"][0]  # otherwise the plugin `offline` adds one from elsewhere


def test_versions_of_the_generator_are_fixed():
    lines = (DOCS / "requirements.txt").read_text().splitlines()
    assert all("==" in line for line in lines if not line.startswith("#"))
