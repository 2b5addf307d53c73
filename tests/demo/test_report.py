import dataclasses
import json
import re
from html.parser import HTMLParser

import pytest
from tests.demo.demo_story import made_up_report, made_up_story, result, with_naive_targets

from storm_hf.demo.report import write_report
from storm_hf.demo.report_data import OpenQuestions, Retrieval
from storm_hf.errors import DatasetError, VideoReadError


INTERVENTIONS = made_up_report().interventions
ARMS = tuple(made_up_report().arms)
ONE_OF_FOUR = "Answer with one word: red, blue, green or yellow."
VOID = {"br", "hr", "img", "input", "link", "meta"}


class Page(HTMLParser):
    """Reads a page; unclosed or crossed elements are an error."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] not in ("style", "script"):
            self.words += data

    def attributes(self, name: str) -> list[str]:
        return [attrs[name] for _, attrs in self.elements if name in attrs]

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(scope="module")
def story(clips):
    return made_up_story(clips, num_examples=2)


@pytest.fixture(scope="module")
def html(story, tmp_path_factory):
    return write_report(tmp_path_factory.mktemp("report"), made_up_report(), story).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def shape(value: object) -> object:
    """Replace every leaf by None."""
    return {key: shape(inner) for key, inner in value.items()} if isinstance(value, dict) else None


def test_json_has_exactly_the_agreed_keys(story, tmp_path):
    write_report(tmp_path, made_up_report(), story)
    result = dict.fromkeys(("accuracy", "forward_passes", "seconds_per_answer", "train_seconds"))
    arms = ("direct", "chain_of_thought", "align", "storm")
    interventions = dict.fromkeys(
        ("own", "zero", "noise_per_dataset", "mean_over_questions", "follows_donor", "oracle")
    )
    assert shape(json.loads((tmp_path / "report.json").read_text())) == {
        "world": None,
        "seed": None,
        "chance": None,
        "num_test": None,
        "num_latents": None,
        "arms": dict.fromkeys(arms, result),
        "interventions": interventions,
        "by_depth": {str(depth): {"direct": None, "storm": None} for depth in range(7)},
        "retrieval": dict.fromkeys(("top1_state", "gallery", "chance")),
        "wall_seconds": None,
        "cpu_seconds": None,
        "peak_rss_mib": None,
        "checkpoint": None,
        "open": {"arms": dict.fromkeys(arms), "interventions": interventions},
    }


def test_json_holds_the_numbers_of_the_report(story, tmp_path):
    report = made_up_report()
    write_report(tmp_path, report, story)
    assert json.loads((tmp_path / "report.json").read_text()) == dataclasses.asdict(report)


def test_folder_holds_the_two_files_and_nothing_else(story, tmp_path):
    page = write_report(tmp_path / "out", made_up_report(), story)
    assert page == tmp_path / "out" / "report.html"
    assert {path.name for path in page.parent.iterdir()} == {"report.html", "report.json"}


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"arms": {"storm": result(1.0)}}, "Expected arms to name direct, align, storm"),
        ({"by_depth": {"0": {"storm": 1.0}}}, "Expected by_depth at 0 to name direct, storm"),
        ({"storm": 1.2}, r"Expected arms\.storm\.accuracy of the report to be a share from 0 to 1 but got 1\.2"),
        ({"by_depth": {"0": {"storm": -1.0, "direct": 0.0}}}, r"by_depth\.0\.storm"),
        ({"cpu_seconds": float("nan")}, "cpu_seconds of the report to be a finite number"),
        ({"retrieval": Retrieval(99.0, 256, 0.25)}, r"retrieval\.top1_state"),
        ({"open": OpenQuestions({"storm": 1.0}, INTERVENTIONS)}, "Expected the arms of open to name direct"),
        ({"open": OpenQuestions({**dict.fromkeys(ARMS, 0.5), "storm": 1.5}, INTERVENTIONS)}, r"open\.arms\.storm"),
    ],
)
def test_report_that_cannot_be_true_is_refused(replaced, message):
    with pytest.raises(DatasetError, match=message):
        made_up_report(**replaced)


def test_story_without_an_example_is_refused(clips, tmp_path):
    with pytest.raises(DatasetError, match="at least one example"):
        write_report(tmp_path, made_up_report(), made_up_story(clips, num_examples=0))


def test_story_that_forgets_how_an_arm_was_trained_is_refused(story, tmp_path):
    forgetful = dataclasses.replace(story, training={})
    with pytest.raises(DatasetError, match="the story's training to name direct"):
        write_report(tmp_path, made_up_report(), forgetful)


def test_missing_clip_is_named_and_nothing_is_written(story, tmp_path):
    gone = dataclasses.replace(story.examples[0], clip=tmp_path / "gone.mp4")
    with pytest.raises(VideoReadError, match=r"gone\.mp4"):
        write_report(tmp_path / "out", made_up_report(), dataclasses.replace(story, examples=(gone,)))
    assert not (tmp_path / "out").exists()


def test_page_is_well_formed_and_fully_rendered(html, page):
    assert html.startswith("<!doctype html>")
    assert not re.search(r"{{|{%|}}.*{{|\bNone\b|\bnan\b|Undefined", page.words)
    assert "{{" not in html
    assert "{%" not in html


def test_page_fetches_nothing(html, page):
    assert page.attributes("src")
    assert all(address.startswith("data:") for address in page.attributes("src"))
    links = [address for address in page.attributes("href") if not address.startswith(("#", "data:"))]
    assert links == ["https://arxiv.org/abs/2605.26014"]
    assert not re.search(r"@import|url\(|srcset|fetch\(|XMLHttpRequest", html)


def test_films_play_inside_the_page_with_stills_beside_them(page):
    films = page.named("video")
    assert [film["src"].partition(",")[0] for film in films] == ["data:video/mp4;base64"] * 2
    assert all({"autoplay", "loop", "muted", "playsinline"} <= film.keys() for film in films)
    stills = [image["alt"] for image in page.named("img") if image["alt"].startswith("The ")]
    assert [still.rpartition(" of ")[2] for still in stills] == ["7"] * 7 + ["6"] * 6


def test_everything_that_is_seen_can_be_heard(page):
    assert all(image.get("alt") for image in page.named("img"))
    assert all(chart.get("role") == "img" and chart.get("aria-label") for chart in page.named("svg"))
    assert all(film.get("aria-label") for film in page.named("video"))


def test_headings_descend_without_gaps(page):
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))


def test_ids_are_unique_and_links_inside_the_page_lead_somewhere(page):
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    inside = {address[1:] for address in page.attributes("href") if address.startswith("#")}
    assert inside | set(page.attributes("aria-labelledby")) <= set(ids)


def test_each_latent_shows_whether_it_imagined_the_true_state(page):
    verdicts = [svg["aria-label"] for svg in page.named("svg") if svg["aria-label"].startswith("shows")]
    right, wrong = "shows the true state", "shows another state"
    assert verdicts == [right, right, wrong, right, right, right] * 2
    assert page.words.count("5 of 6 latents lie nearest") == 2


def test_numbers_stand_in_tables_too(page):
    for cell in ("79.7%", "98.4%", "87.1%", "0.987", "0.912"):
        assert cell in page.words


def test_accuracy_of_both_question_forms_stands_side_by_side(page, story, tmp_path):
    assert "Asked without options, STORM answers 99% correctly; with zeros for its latents 26.2%" in page.words
    assert "Correct, asked without options" in page.words
    closed_only = made_up_report(open=None)
    assert "without options" not in Page(write_report(tmp_path, closed_only, story).read_text()).words


def test_terse_chain_stands_honestly_beside(page):
    assert "needs 8 passes and answers 99.2% correctly" in page.words
    assert "98.4%" in page.words  # of open questions
    assert "the same class of cost" in page.words


def test_page_without_a_terse_chain_says_that_it_was_not_measured(story, tmp_path):
    training = {name: how for name, how in story.training.items() if name != "terse_chain"}
    without = dataclasses.replace(story, extra_variants={}, training=training)
    words = Page(write_report(tmp_path, made_up_report(), without).read_text()).words
    assert "was not measured in this run" in words


def test_page_says_how_to_make_it_again_and_how_to_load_the_checkpoint(page):
    assert "storm demo --out runs/demo --seed 0" in page.words
    assert 'name = "runs/demo/storm"' in page.words
    assert "from_pretrained(name, trust_remote_code=True)" in page.words
    assert "AutoProcessor.from_pretrained(name, trust_remote_code=False)" in page.words  # asks nothing
    assert f"Which cup holds the ball at the end? {ONE_OF_FOUR}" in page.words.replace("\\u0027", "'")
    assert "transformers 5.23.0" in page.words


def test_verdict_of_the_page_follows_the_numbers(story, tmp_path, page):
    assert "It works." in page.words
    failed = Page(write_report(tmp_path, made_up_report(storm=0.25), story).read_text()).words
    assert "It does not work." in failed
    assert "It works" not in failed


def test_page_of_naive_targets_says_why(story, tmp_path):
    naive = with_naive_targets(story, 0.987, 0.987, 0.994)
    inert = made_up_report().interventions | {"own": 0.25, "follows_donor": 0.0}
    words = Page(write_report(tmp_path, made_up_report(storm=0.25, interventions=inert), naive).read_text()).words
    assert "nearly identical (random-pair cosine 0.987)" in words
    assert "centred and whitened on the training clips" not in words


def test_words_from_outside_cannot_become_markup(story, tmp_path):
    example = dataclasses.replace(story.examples[0], question="<script>alert(1)</script>?")
    html = write_report(tmp_path, made_up_report(), dataclasses.replace(story, examples=(example,))).read_text()
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)" in html


def test_same_report_is_the_same_page_to_the_byte(story, tmp_path):
    first, second = (write_report(tmp_path / name, made_up_report(), story).read_bytes() for name in "ab")
    assert first == second
