import json
import subprocess
import sys

import pytest
from tests.evaluation.harness.standin import write_standins
from typer.testing import CliRunner

from storm_hf.cli import app
from storm_hf.cli import evaluate as verb
from storm_hf.errors import DependencyError
from storm_hf.evaluation.harness import run as harness
from storm_hf.evaluation.harness.task_process import VERDICT, without_judge


@pytest.fixture
def asked(monkeypatch):
    """The runs that the command would do."""
    runs = []
    monkeypatch.setattr(harness, "evaluate", lambda run, on_progress: runs.append(run) or on_progress("storm", 1, 2))
    monkeypatch.setattr(verb, "_report", lambda out, scorers, judge: runs.append((scorers, judge)))
    return runs


def evaluate(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def test_options_become_a_run(asked, tmp_path):
    result = evaluate(
        *("--model", "m", "--task", "mmvu", "--task", "mvbench_action_count"),
        *("--variant", "storm", "--variant", "cot"),
        *("--data-root", tmp_path),
        *("--num-latents", 4, "--latents", "zero", "--limit", 5, "--out", tmp_path / "out", "--scorer", "lmms"),
        *("--revision", "v1", "--num-processes", 2),
    )
    assert result.exit_code == 0, result.output
    run, (scorers, judge) = asked
    assert (run.tasks, run.variants) == (("mmvu_val", "mvbench_action_count"), ("storm", "cot"))
    assert (run.data_root, run.out, run.limit) == (tmp_path, tmp_path / "out", 5)
    assert run.num_processes == 2
    assert run.arguments("storm") == {
        "pretrained": "m",
        "revision": "v1",
        "num_latents": 4,
        "latents": "zero",
        "max_frames": 32,
        "batch_size": 1,
    }
    assert (scorers, judge) == (("lmms",), None)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--tasks", "mmvu,mvbench"], "`--tasks` of `storm evaluate` has become `--task`, once for each: "),
        (["--arms=storm,cot"], "`--arms` of `storm evaluate` has become `--variant`, once for each: "),
        (["--arm", "cot"], "`--arm` of `storm evaluate` has become `--variant`."),
        (["--task", "mmvu,mvbench"], "Give the option once for each: `mmvu`, then again with `mvbench`."),
        (["--variant", "storm, cot"], "Give the option once for each: `storm`, then again with `cot`."),
        (["--scorer", "lmms,strict"], "Give the option once for each: `lmms`, then again with `strict`."),
    ],
)
def test_list_with_commas_is_refused_with_the_form_that_is_taken(asked, arguments, sentence):
    result = evaluate("--model", "m", *arguments)
    assert (result.exit_code, asked) == (2, [])
    assert result.stderr.startswith("storm: ")
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1


def test_all_benchmarks_are_the_default(asked):
    assert evaluate("--model", "m").exit_code == 0
    assert len(asked[0].tasks) == 1 + 20 + 4 + 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--task", "mvbenhc"], "storm: There is no benchmark 'mvbenhc'; expected videomme, "),
        (["--variant", "latent"], "storm: There is no variant 'latent'; expected some of storm, direct, cot.\n"),
        (["--data-root", "."], "storm: The questions of lmms-eval/Video-MME are not in "),
    ],
)
def test_what_cannot_be_ends_with_one_sentence(monkeypatch, checkpoint, tmp_path, arguments, sentence):
    monkeypatch.setattr(harness, "find_spec", lambda name: object())
    result = evaluate("--model", checkpoint, "--out", tmp_path, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr


def test_judge_is_asked_over_its_server_and_remembers(tmp_path):
    with without_judge() as environment:
        judge = verb._judge(environment["OPENAI_API_URL"], "somebody", tmp_path)
        assert judge.answer("Is it so?") == VERDICT
    assert judge.name == f"somebody at {environment['OPENAI_API_URL']}"
    assert verb._judge(environment["OPENAI_API_URL"], "somebody", tmp_path).answer("Is it so?") == VERDICT


@pytest.mark.lmms
def test_table_goes_to_stdout_and_a_second_call_runs_nothing(checkpoint, tmp_path):
    root = write_standins(tmp_path / "data")
    options = [
        *("--task", "mmvu", "--variant", "storm", "--variant", "cot", "--scorer", "lmms", "--scorer", "strict"),
        *("--limit", "2", "--max-frames", "4"),
    ]
    command = [sys.executable, "-c", "from storm_hf.cli import main; main()", "evaluate", "--model", str(checkpoint)]
    command += [*options, "--data-root", str(root), "--out", str(tmp_path / "run")]
    first, second = (subprocess.run(command, capture_output=True, text=True) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr
    assert first.stdout == second.stdout
    assert "mmvu_val" in first.stdout
    assert f"The report is {tmp_path / 'run' / 'report.html'}" in first.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert {row["arm"] for row in report["results"]} == {"storm", "cot"}


def test_missing_lmms_eval_ends_with_the_command_that_gets_it(monkeypatch, tmp_path):
    def missing(package):
        raise DependencyError(f"`{package}` is missing. Install it with: pip install 'storm-hf[evaluation]'")

    monkeypatch.setattr(harness, "find_spec", lambda name: None)
    monkeypatch.setattr(harness, "require", missing)
    result = evaluate("--model", "m", "--out", tmp_path)
    assert result.exit_code == 2
    assert "pip install 'storm-hf[evaluation]'" in result.stderr
