"""The whole demo in small, as processes of its own: what it leaves behind, and what Ctrl-C does to it."""

import dataclasses
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest
from benchmarks.variants import CONTROLS, controls
from rich.console import Console
from tests.end_to_end.mini_demo import mini_recipe

from storm_hf.atomic import read_json
from storm_hf.demo import DemoFolder, data, measure, run_demo, run_variant, stages
from storm_hf.errors import CheckpointError, StaleWorkError
from storm_hf.evaluation import load_checkpoint
from storm_hf.evaluation.thought_gallery import Gallery
from storm_hf.model.processing_storm import find_differences


ROOT = Path(__file__).parents[2]
STAGES = ["1_render", "2_base", "3_encode", "4_train", "5_evaluate", "6_reload"]
ARMS = ("direct", "chain_of_thought", "terse_chain", "align", "storm")
SECONDS_AT_MOST = 400


def start(folder: Path, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.end_to_end.mini_demo", str(folder)]
    return subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True, env=os.environ | environment
    )


def finish(process: subprocess.Popen[str]) -> int:
    _, words = process.communicate(timeout=SECONDS_AT_MOST)
    assert "Traceback" not in words, words
    return process.returncode


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> DemoFolder:
    """The folder of a run that nobody interrupted."""
    folder = DemoFolder(tmp_path_factory.mktemp("demo") / "run")
    assert finish(start(folder.path)) == 0
    return folder


def shape(value: object) -> object:
    """Replace every leaf by None."""
    return {key: shape(inner) for key, inner in value.items()} if isinstance(value, dict) else None


def test_json_has_exactly_the_agreed_keys(finished):
    arm = dict.fromkeys(("accuracy", "forward_passes", "seconds_per_answer", "train_seconds"))
    arms = ("direct", "chain_of_thought", "align", "storm")
    interventions = ("own", "zero", "noise_per_dataset", "mean_over_questions", "follows_donor", "oracle")
    numbers = ("world", "seed", "chance", "num_test", "num_latents", "wall_seconds", "cpu_seconds", "peak_rss_mib")
    assert shape(read_json(finished.path / "report.json")) == {
        **dict.fromkeys((*numbers, "checkpoint")),
        "arms": dict.fromkeys(arms, arm),
        "interventions": dict.fromkeys(interventions),
        "open": {"arms": dict.fromkeys(arms), "interventions": dict.fromkeys(interventions)},
        "by_depth": {str(depth): {"direct": None, "storm": None} for depth in range(7)},
        "retrieval": dict.fromkeys(("top1_state", "gallery", "chance")),
    }


def test_json_says_what_the_recipe_asked_for_and_the_arms_measured(finished):
    report, recipe = read_json(finished.path / "report.json"), mini_recipe()
    assert (report["world"], report["seed"], report["chance"]) == ("shuffle", 0, 0.25)
    assert (report["num_test"], report["num_latents"], report["retrieval"]["gallery"]) == (8, 6, 4)
    storm = read_json(finished.variant("storm") / "results.json")
    assert report["arms"]["storm"]["accuracy"] == report["interventions"]["own"] == storm["accuracy"]
    assert report["open"]["arms"]["storm"] == report["open"]["interventions"]["own"] == storm["open"]["accuracy"]
    assert len(storm["choices"]) == sum(recipe.test_depths.values())
    assert storm["num_updates"] == recipe.trainings["align"].num_updates + recipe.trainings["answer"].num_updates
    assert all(arm["train_seconds"] > 0 for arm in report["arms"].values())


def test_json_counts_what_all_stages_cost(finished):
    report = read_json(finished.path / "report.json")
    costs = [read_json(finished.path / "done" / stage) for stage in STAGES]
    for name in ("wall_seconds", "cpu_seconds"):
        assert report[name] == pytest.approx(sum(cost[name] for cost in costs))
    assert report["peak_rss_mib"] == max(cost["peak_rss_mib"] for cost in costs)


def test_page_shows_real_clips(finished):
    page = (finished.path / "report.html").read_text()
    assert page.count("data:video/mp4;base64,") >= 2
    assert "clips with 5 or 6 swaps" in page


def test_code_of_the_page_asks_the_checkpoint_without_this_package_and_without_a_question_back(finished):
    page = (finished.path / "report.html").read_text()
    (code,) = (unescape(block) for block in re.findall(r"<code>(from transformers.*?)</code>", page, flags=re.DOTALL))
    alone = 'import sys; sys.modules["storm_hf"] = None\n'
    environment = {**os.environ, "HF_MODULES_CACHE": str(finished.path / "page_modules")}
    ended = subprocess.run(
        [sys.executable, "-c", alone + code], stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment
    )
    assert ended.returncode == 0, ended.stderr
    given = re.search(r"# (.*)$", code)[1]  # what the page says that it answers, if that is an option
    assert ended.stdout.strip().endswith(given) or given == "nothing readable"


def test_checkpoint_is_whole_and_says_what_it_has_seen(finished):
    checkpoint = Path(read_json(finished.path / "report.json")["checkpoint"])
    assert checkpoint == finished.storm
    model, processor = load_checkpoint(str(checkpoint))
    assert model.config.trained_on == ["world:shuffle"]
    assert model.config.prompt_record.question_forms == ("options", "open")
    assert find_differences(processor, model.config) == []
    assert len(processor.tokenizer) == model.get_input_embeddings().num_embeddings
    gallery = Gallery.load(checkpoint)
    assert gallery.latents.shape == (4, model.config.hidden_size)


def test_checkpoint_answered_again_with_its_own_code(finished):
    """The last stage of the run itself: an interpreter in which storm_hf cannot be imported."""
    assert len(read_json(finished.path / "reload.json")) == 8
    code = list((finished.path / "hf_modules" / "transformers_modules").rglob("modeling_storm.py"))
    assert [file.read_bytes() for file in code] == [(finished.storm / "modeling_storm.py").read_bytes()]


def test_checkpoint_that_answers_differently_is_an_error(finished, monkeypatch):
    expected = read_json(finished.variant("storm") / "results.json")["choices"][-8:]  # the deep clips come last
    answers = ["nothing" if choice is None else choice for choice in expected]
    monkeypatch.setattr(measure, "answer_without_storm_hf", lambda folder: answers)
    measure.check_reload(finished, mini_recipe(), lambda count: None)
    answers[2] = "blue" if answers[2] == "red" else "red"
    with pytest.raises(CheckpointError, match="answers 1 of 8 clips differently"):
        measure.check_reload(finished, mini_recipe(), lambda count: None)


def test_checkpoint_that_does_not_load_alone_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="does not load without storm_hf"):
        measure.answer_without_storm_hf(DemoFolder(tmp_path))


def times(folder: DemoFolder) -> dict[str, int]:
    """Modification time of each file, in nanoseconds."""
    files = (path for path in folder.path.rglob("*") if path.is_file())
    return {str(path.relative_to(folder.path)): path.stat().st_mtime_ns for path in files}


def test_half_of_the_training_questions_name_their_options_and_the_test_asks_both_forms(finished):
    _, processor = data.load(finished.storm)

    def names_options(row):
        return "Answer with one word" in processor.tokenizer.decode(row["prompt_input_ids"].tolist())

    train = list(data.dataset(finished, "train", with_thoughts=False))
    has_options = [len(row["options"]) == 4 for row in train]
    assert 6 <= sum(has_options) <= 18  # of 24, half of them on average
    assert [names_options(row) for row in train] == has_options
    usual, second = (
        data.dataset(finished, "test", with_thoughts=False),
        data.tests_in_second_form(finished, mini_recipe()),
    )
    for test, is_open in ((list(usual), False), (list(second), True)):
        assert all(len(row["options"]) == 4 for row in test)  # to read answers by
        assert [names_options(row) for row in test] == [not is_open] * len(test)


def test_second_call_does_nothing_but_write_the_report_again(finished, monkeypatch):
    monkeypatch.setattr(stages, "run_tasks", lambda *args, **kwargs: pytest.fail("a stage was repeated"))
    before, report = times(finished), read_json(finished.path / "report.json")
    again = run_demo(finished.path, recipe=mini_recipe(), console=Console(file=io.StringIO()))
    after = times(finished)
    assert {name for name in after if after[name] != before.get(name)} == {"report.json", "report.html"}
    assert json.loads(again.to_json()) == read_json(finished.path / "report.json") == report


def test_other_recipe_in_the_same_folder_is_refused(finished):
    before = times(finished)
    with pytest.raises(StaleWorkError, match="begun with seed=0, and this run has 7"):
        run_demo(finished.path, recipe=dataclasses.replace(mini_recipe(), seed=7))
    assert times(finished) == before


def interrupt(process: subprocess.Popen[str], is_time: Callable[[], bool]) -> None:
    """Press Ctrl-C as a terminal does, once it is time."""
    deadline = time.monotonic() + SECONDS_AT_MOST
    while not is_time():
        assert process.poll() is None, "the run ended before it was interrupted"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    assert finish(process) == 130


def done(folder: DemoFolder) -> list[str]:
    return sorted(marker.name for marker in (folder.path / "done").glob("*"))


@pytest.mark.slow
def test_interrupted_run_continues_and_ends_as_if_nothing_had_happened(finished, tmp_path):
    folder = DemoFolder(tmp_path / "run")
    interrupt(start(folder.path), lambda: (folder.path / "done" / "1_render").exists())
    assert done(folder) == STAGES[:1]
    rendered = times(folder)
    interrupt(start(folder.path), lambda: folder.is_trained("direct"))
    assert done(folder) == STAGES[:3]
    stopped = times(folder)
    assert finish(start(folder.path, OMP_NUM_THREADS="2")) == 0  # workers compute on one thread, whatever is set
    ended = times(folder)

    assert [name for name in rendered if name.endswith(".mp4") and ended[name] != rendered[name]] == []
    kept = [name for name in stopped if name.startswith(("base", "cached", "data", "arms/direct"))]
    kept += [f"done/{stage}" for stage in STAGES[:3]]
    assert [name for name in kept if ended[name] != stopped[name]] == []

    assert figures(folder) == figures(finished)
    for arm in ARMS:
        one, other = (read_json(run.variant(arm) / "results.json") for run in (folder, finished))
        varying = ("seconds_per_answer", "train_seconds")
        assert {name: value for name, value in one.items() if name not in varying} == {
            name: value for name, value in other.items() if name not in varying
        }, arm
    saved = sorted(path.relative_to(finished.path) for path in finished.path.rglob("*.safetensors"))
    assert len(saved) > len(ARMS)
    for name in saved:
        assert (folder.path / name).read_bytes() == (finished.path / name).read_bytes(), name


def figures(folder: DemoFolder) -> dict[str, object]:
    """A report without what a run costs and where it lies."""
    report = read_json(folder.path / "report.json")
    for name in ("wall_seconds", "cpu_seconds", "peak_rss_mib", "checkpoint"):
        del report[name]
    for arm in report["arms"].values():
        del arm["seconds_per_answer"], arm["train_seconds"]
    return report


@pytest.mark.parametrize("name", sorted(CONTROLS))
def test_each_control_of_the_benchmark_trains_and_is_tested(finished, name):
    recipe = mini_recipe()
    run_variant(finished, recipe, controls(recipe)[name], lambda num_done: None)
    results = read_json(finished.variant(name) / "results.json")
    assert len(results["choices"]) == sum(recipe.test_depths.values())
    assert results["num_updates"] == recipe.trainings["align"].num_updates + recipe.trainings["answer"].num_updates
