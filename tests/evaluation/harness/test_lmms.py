"""Behaviour with lmms-eval itself: its own tasks, unmodified and offline, in the processes that users start."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise

import psutil
import pytest
from tests.evaluation.harness.standin import TASKS

from storm_hf.errors import StageError
from storm_hf.evaluation.harness.launch import log_file
from storm_hf.evaluation.harness.run import EvaluationRun, evaluate
from storm_hf.evaluation.harness.task_process import VERDICT, VariantTasks, results_file, samples_file, without_judge
from storm_hf.evaluation.results import report_run


pytestmark = pytest.mark.lmms

SETTINGS = {"max_frames": 4, "max_new_tokens": 8, "device": "cpu"}
METRICS = {
    "videomme": "videomme_perception_score,none",
    "mvbench": "mvbench_accuracy,none",
    "tempcompass": "avg_accuracy,none",
    "mmvu": "accuracy,none",
}
NUM_QUESTIONS = 4 + 4 + 3 + 3 + 5 + 3


@pytest.fixture(scope="module")
def make_run(storm_checkpoint, data_root, tmp_path_factory):
    def make(name, **changes):
        out = tmp_path_factory.mktemp("runs") / name
        settings = {**SETTINGS, **changes.pop("settings", {})}
        run = EvaluationRun(str(storm_checkpoint), TASKS, out, ("storm",), data_root=data_root, settings=settings)
        return replace(run, **changes)

    return make


@pytest.fixture(scope="module")
def whole(make_run):
    """A run with batches of three, shared: read only."""
    run = make_run("whole", settings={"batch_size": 3})
    evaluate(run)
    return run


def samples(run, task, variant="storm"):
    return [json.loads(line) for line in samples_file(run.folder(variant), variant, task).read_text().splitlines()]


def texts(run, variant="storm"):
    return {task: [sample["filtered_resps"] for sample in samples(run, task, variant)] for task in TASKS}


def numbers(run, task):
    """lmms-eval's own metrics of a task."""
    results = json.loads(results_file(run.folder("storm"), "storm", task).read_text())["results"][task]
    return {name: value for name, value in results.items() if name.endswith(",none") and "stderr" not in name}


def sample_lines(run, task):
    return samples_file(run.folder("storm"), "storm", task).read_text().splitlines()


def report_file(run):
    report_run(run.out, ("lmms", "strict"), command="storm evaluate")
    return (run.out / "report.json").read_text()


def without_times(text):
    return re.sub(r'"seconds": [\d.e-]+', "", text)


def ends_of_bars(log):
    """Done and total of each progress bar as it was last shown."""
    shown = re.findall(r"Answering: .*?(\d+)/(\d+) \[", log.read_text())
    return [last for last, (done, _) in pairwise([*shown, ("0", "0")]) if done == "0"]


def answer_files(run, variant="storm"):
    return sorted(run.folder(variant).glob("answers-*.jsonl"))


def num_logged(run):
    return sum(len(path.read_text().splitlines()) for path in answer_files(run))


def test_all_tasks_run_unmodified_and_offline(whole):
    assert sum(map(len, texts(whole).values())) == NUM_QUESTIONS == num_logged(whole)
    for task in TASKS:
        assert numbers(whole, task)


def test_samples_hold_documents_prompts_and_costs(whole):
    sample = samples(whole, "videomme_w_subtitle")[0]
    assert sample["doc"]["options"] == ["A. red.", "B. green.", "C. blue.", "D. grey."]
    assert "a square goes by" in sample["input"]
    counts = sample["token_counts"][0]
    assert (counts["num_latents"], len(counts["latent_norms"]), counts["latents"]) == (4, 4, "own")
    assert counts["forward_passes"] == 4 + 1 + counts["output_tokens"] - 1


def test_answers_do_not_depend_on_the_batch(whole, make_run):
    run = make_run("single", settings={"batch_size": 1})
    evaluate(run)
    assert texts(run) == texts(whole)


def test_killed_run_goes_on_where_it_was(whole, make_run):
    run = make_run("killed", settings={"batch_size": 3})
    process = subprocess.Popen([sys.executable, "-c", _as_program(run)], start_new_session=True)
    while not answer_files(run) and process.poll() is None:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = [path.read_text() for path in answer_files(run)]
    assert 0 < num_logged(run) < NUM_QUESTIONS
    evaluate(run)
    assert texts(run) == texts(whole)
    assert [path.read_text()[: len(text)] for path, text in zip(answer_files(run), kept, strict=True)] == kept


@pytest.mark.parametrize("batch_size", [1, 3])
def test_two_processes_write_what_one_writes(make_run, batch_size):
    alone, together = (
        make_run(f"of_{number}", num_processes=number, settings={"batch_size": batch_size}) for number in (1, 2)
    )
    for run in (alone, together):
        evaluate(run)
    assert [path.name for path in answer_files(together)] == ["answers-0.jsonl", "answers-1.jsonl"]
    assert num_logged(together) == NUM_QUESTIONS
    ends = ends_of_bars(log_file(together.folder("storm")))
    assert len(ends) == len(TASKS)
    assert all(done == total for done, total in ends), "a bar counts the share of its process"
    assert without_times(report_file(together)) == without_times(report_file(alone))
    for task in TASKS:
        assert [without_times(line) for line in sample_lines(together, task)] == [
            without_times(line) for line in sample_lines(alone, task)
        ]
        assert numbers(together, task) == numbers(alone, task)


def test_killed_process_ends_the_run_which_goes_on_alone(whole, make_run):
    run = make_run("of_two", num_processes=2, settings={"batch_size": 3})
    process = subprocess.Popen(
        [sys.executable, "-c", _as_program(run)], start_new_session=True, stderr=subprocess.PIPE
    )
    while len(answer_files(run)) < 2 and process.poll() is None:
        time.sleep(0.02)
    second = next(child for child in psutil.Process(process.pid).children() if child.environ().get("RANK") == "1")
    second.kill()
    _, told = process.communicate()
    assert b"lmms-eval ended with code -9" in told
    assert 0 < num_logged(run) < NUM_QUESTIONS
    evaluate(replace(run, num_processes=1))
    assert texts(run) == texts(whole)
    assert num_logged(run) == NUM_QUESTIONS


def test_finished_run_starts_nothing(whole):
    before = {path: path.stat().st_mtime_ns for path in whole.folder("storm").iterdir()}
    evaluate(whole)
    assert {path: path.stat().st_mtime_ns for path in whole.folder("storm").iterdir()} == before


def test_no_judge_is_waited_for_and_the_samples_say_so(whole):
    unread = [sample["avg_accuracy"] for sample in samples(whole, "tempcompass_yes_no")]
    assert {answer["chatgpt_response"] for answer in unread if not answer["match_success"]} <= {VERDICT}


def test_missing_video_ends_with_a_sentence(make_run, data_root, tmp_path):
    import shutil

    copy = shutil.copytree(data_root, tmp_path / "data")
    (copy / "videomme/data/clip2.mp4").unlink()
    (copy / "mvbench_video/clevrer/video_validation/object_existence1.mp4").unlink()
    run = make_run("missing", data_root=copy, tasks=("videomme",))
    with pytest.raises(StageError, match=r"clip2\.mp4 does not exist.*hf download lmms-eval/Video-MME") as error:
        evaluate(run)
    assert error.value.exit_code == 2
    with pytest.raises(StageError, match=r"object_existence1\.mp4 does not exist\."):
        evaluate(replace(run, tasks=("mvbench_object_existence",)))


def test_command_of_lmms_eval_finds_the_model_and_prints_the_same_numbers(
    whole, storm_checkpoint, data_root, tmp_path
):
    arguments = f"pretrained={storm_checkpoint},max_frames=4,max_new_tokens=8"
    command = [sys.executable, "-m", "lmms_eval", "--model", "storm", "--model_args", arguments]
    command += ["--tasks", ",".join(TASKS), "--batch_size", "2", "--device", "cpu", "--verbosity", "DEBUG"]
    command += ["--output_path", str(tmp_path), "--log_samples"]
    with without_judge() as judge:
        environment = {**os.environ, **judge, "HF_HOME": str(data_root), "HF_DATASETS_CACHE": str(tmp_path / "cache")}
        child = subprocess.run(command, cwd=data_root, env=environment, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr[-2000:]
    results = json.loads(next(tmp_path.rglob("*_results.json")).read_text())["results"]
    for task in TASKS:
        assert numbers(whole, task).items() <= results[task].items()


# Answers as models write them, in turn. Each benchmark has other rules for them.
PHRASES = (
    "A",
    "(B) green",
    "the answer is C.",
    "",
    "D. grey.",
    "<think>A? no.</think>B",
    "yes, it does",
    "No.",
    "b",
    "green",
)
SCRIPTED = f"""
from itertools import cycle
from dataclasses import replace
from storm_hf.evaluation.harness.requests import ChatGenerator
from storm_hf.evaluation.harness.task_process import main

phrases = cycle({PHRASES!r})
stock = ChatGenerator.answer

def answer(self, questions, inputs):
    return [replace(given, text=next(phrases)) for given in stock(self, questions, inputs)]

ChatGenerator.answer = answer
main()
"""


def test_our_scorer_of_this_name_gives_the_numbers_of_lmms_eval(make_run):
    run = make_run("scripted", limit=4)
    folder = run.folder("storm")
    arguments = {**run.arguments("storm"), "answers": str(folder)}
    work = VariantTasks("storm", TASKS, arguments, str(folder), str(run.data_root), run.limit)
    folder.mkdir(parents=True)
    environment = {**os.environ, "HF_HOME": str(run.data_root), "HF_DATASETS_CACHE": str(run.out / "cache")}
    subprocess.run([sys.executable, "-c", SCRIPTED, work.to_json()], env=environment, check=True)
    report = report_run(run.out, ("lmms",))
    ours = {task: report.score("storm", task, "lmms").accuracy for task in TASKS}
    theirs = {task: numbers(run, task)[METRICS[task.partition("_")[0]]] / 100 for task in TASKS}
    assert ours == pytest.approx(theirs)
    assert len(set(theirs.values())) > 2


REFUSALS = """
import sys
from storm_hf.evaluation.harness.chat_model import StormChat
from storm_hf.errors import ConfigurationError

model = StormChat(pretrained=sys.argv[1], device="cpu")
for method in (model.loglikelihood, model.generate_until_multi_round):
    try:
        method([])
    except ConfigurationError as error:
        print(error)
"""


def test_what_the_model_does_not_offer_is_said(storm_checkpoint):
    child = subprocess.run([sys.executable, "-c", REFUSALS, storm_checkpoint], capture_output=True, text=True)
    assert child.stdout.count("Choose a task with `output_type: generate_until`") == 2


def _as_program(run):
    """The program that does a run."""
    fields = {name: getattr(run, name) for name in ("model", "tasks", "variants", "settings", "num_processes")}
    return (
        "from pathlib import Path\n"
        "from storm_hf.evaluation.harness.run import EvaluationRun, evaluate\n"
        f"evaluate(EvaluationRun(**{fields!r}, out=Path({str(run.out)!r}), data_root=Path({str(run.data_root)!r})))\n"
    )
