import io
import json

import pytest
from rich.console import Console
from tests.evaluation.results.logged import mmvu, mvbench, tempcompass, videomme, write_samples

from storm_hf.atomic import write_json
from storm_hf.errors import ConfigurationError, DatasetError, ServerError
from storm_hf.evaluation.judges import Judge
from storm_hf.evaluation.results import report_run, report_table


def video_rows(answers):
    durations = ["short", "long"]
    return [(videomme(n, f"clip{n // 2}", "A", duration=durations[n % 2]), text) for n, text in enumerate(answers)]


@pytest.fixture
def run(tmp_path):
    counts = [{"output_tokens": 2, "forward_passes": 10, "seconds": 0.5}]
    write_samples(tmp_path, "storm", "videomme", video_rows(["A", "A", "A", "B", "no idea", "A"]), token_counts=counts)
    write_samples(tmp_path, "direct", "videomme", video_rows(["A", "B", "B", "B", "A", "B"]))
    write_samples(tmp_path, "storm", "mvbench_action_count", [(mvbench(), "(A)"), (mvbench("b.mp4"), "")])
    write_samples(tmp_path, "storm", "mvbench_state_change", [(mvbench(), "(B)"), (mvbench("b.mp4"), "(B)")])
    write_samples(
        tmp_path, "storm", "tempcompass_yes_no", [(tempcompass(), "Yes"), (tempcompass(dim="order"), "It does")]
    )
    caption = tempcompass("Describe it.", "", mc_question="What?\nA. it runs\nB. it waits", mc_answer="A. it runs")
    write_samples(tmp_path, "storm", "tempcompass_captioning", [(caption, "It runs.")])
    write_samples(tmp_path, "storm", "mmvu_val", [(mmvu(), "B"), (mmvu("open-ended", "DNA", "Pharmacy"), "RNA")])
    return tmp_path


def make(run, **arguments):
    return report_run(run, num_resamples=200, **arguments)


def test_each_scorer_has_its_own_denominator(run):
    report = make(run)
    scores = [report.score("storm", "videomme", scorer) for scorer in ("official", "lmms", "strict")]
    assert [score.accuracy for score in scores] == pytest.approx([4 / 5, 4 / 6, 4 / 6])
    assert [score.num_counted for score in scores] == [5, 6, 6]
    assert [score.num_unreadable for score in scores] == [1, 1, 1]


def test_report_says_what_makes_it_again(run):
    make(run, command="storm evaluate --model some")
    assert json.loads((run / "report.json").read_text())["command"] == "storm evaluate --model some"
    assert "<code>storm evaluate --model some</code>" in (run / "report.html").read_text()


def test_report_names_the_checkpoint_and_its_commit(run):
    assert make(run).models == {}
    write_json(
        run / "fingerprint.json",
        {
            "storm": {"hash": "", "parameters": {"pretrained": "me/storm", "revision": "abc"}},
            "direct": {"hash": "", "parameters": {"pretrained": "runs/answer"}},
            "cot": {"hash": "", "parameters": {"pretrained": "runs/answer"}},  # begun, without a sample
        },
    )
    report = make(run)
    assert report.models == {"storm": "me/storm at commit abc", "direct": "runs/answer"}
    assert json.loads((run / "report.json").read_text())["models"] == report.models
    assert "me/storm at commit abc answered as storm." in (run / "report.html").read_text()


def test_a_benchmark_of_many_tasks_has_a_number_of_its_own_and_one_per_task(run):
    report = make(run)
    assert report.score("storm", "mvbench", "lmms").accuracy == pytest.approx(1 / 3)
    assert report.score("storm", "mvbench_action_count", "lmms").accuracy == 1.0
    assert report.score("storm", "mvbench", "official").accuracy == pytest.approx(2 / 4)


def test_sub_scores_split_a_benchmark(run):
    report = make(run)
    assert report.score("storm", "videomme", "strict", "duration: short").num_asked == 3
    assert report.score("storm", "tempcompass", "strict", "format, aspect: yes_no, order").accuracy == 0.0
    assert report.score("storm", "mmvu_val", "lmms", "discipline: Healthcare").accuracy == 0.0
    assert report.score("storm", "mmvu_val", "lmms", "kind: multiple-choice").accuracy == 1.0
    with pytest.raises(DatasetError, match="group"):
        report.score("storm", "tempcompass_yes_no", "lmms", "aspect: action")


def test_without_a_judge_captions_have_no_number_and_missed_rules_are_wrong(run):
    report = make(run)
    assert report.score("storm", "tempcompass_captioning", "lmms").accuracy is None
    yes_no = report.score("storm", "tempcompass_yes_no", "lmms")
    assert (yes_no.accuracy, yes_no.num_unjudged) == (0.5, 1)
    assert report.judge is None
    assert "No judge was asked" in (run / "report.html").read_text()


def test_a_judge_is_named_beside_what_it_marked(run, tmp_path):
    def ask(prompt):
        return "Answer: A" if "Description:" in prompt else "Correct"

    report = make(run, judge=Judge("referee", ask, tmp_path / "judge"))
    assert report.score("storm", "tempcompass_captioning", "lmms").accuracy == 1.0
    assert report.score("storm", "mmvu_val", "official").num_counted == 2
    assert {result.judge for result in report.results} == {"referee"}
    assert "referee" in (run / "report.html").read_text()


def test_a_judge_that_cannot_be_reached_writes_no_report(run, tmp_path):
    def ask(prompt):
        raise ServerError("away")

    with pytest.raises(ServerError):
        make(run, judge=Judge("referee", ask, tmp_path / "judge"))
    assert not (run / "report.json").exists()


def test_arms_are_compared_on_the_same_questions_with_videos_drawn_whole(run):
    report = make(run)
    row = next(row for row in report.differences if (row.part, row.scorer) == ("videomme", "strict"))
    assert (row.first, row.second, row.num_questions) == ("direct", "storm", 6)
    assert row.interval.mean == pytest.approx((2 - 4) / 6)
    assert row.interval.low < row.interval.mean < row.interval.high
    official = next(row for row in report.differences if row.scorer == "official")
    assert official.num_questions == 5


def test_costs_are_those_that_were_logged(run):
    costs = {(cost.variant, cost.part): cost for cost in make(run).costs}
    assert costs["storm", "videomme"].forward_passes == 10
    assert costs["storm", "videomme"].seconds == 0.5
    assert costs["direct", "videomme"].forward_passes is None


def test_the_files_say_scorer_judge_and_denominator(run):
    make(run)
    rows = json.loads((run / "report.json").read_text())["results"]
    names = {"accuracy", "standard_error", "num_asked", "num_counted", "num_unreadable", "num_unjudged", "num_videos"}
    assert all(row["scorer"] and "judge" in row and set(row["score"]) == names for row in rows)
    page = (run / "report.html").read_text()
    assert all(text in page for text in ("videomme", "official", "duration: long", "Unreadable", "80%"))


def test_the_table_fits_a_terminal_of_a_hundred_columns(run):
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(report_table(make(run)))
    text = console.export_text()
    assert "official, none" in text
    assert max(len(line) for line in text.splitlines()) <= 100


def test_the_same_seed_gives_the_same_report(run):
    assert make(run) == make(run)


@pytest.mark.parametrize("scorers", [(), ("lenient",)])
def test_an_unknown_scorer_is_refused(run, scorers):
    with pytest.raises(ConfigurationError, match="Expected scorers"):
        make(run, scorers=scorers)
