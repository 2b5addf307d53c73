import pytest
from typer.testing import CliRunner

from storm_hf.cli import app
from storm_hf.cli import evaluate as verb
from storm_hf.errors import MissingExtraError
from storm_hf.evaluation.harness import run as harness


@pytest.fixture
def asked(monkeypatch):
    """The runs that the command would do."""
    runs = []
    monkeypatch.setattr(harness, "evaluate", lambda run, on_progress: runs.append(run) or on_progress("storm", 1, 2))
    monkeypatch.setattr(verb, "_report", lambda out, scorers: runs.append(scorers))
    return runs


def evaluate(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def test_options_become_a_run(asked, tmp_path):
    result = evaluate(
        *("--model", "m", "--tasks", "mmvu, mvbench_action_count", "--arms", "storm,cot", "--data-root", tmp_path),
        *("--num-latents", 4, "--latents", "zero", "--limit", 5, "--out", tmp_path / "out", "--scorer", "lmms"),
    )
    assert result.exit_code == 0, result.output
    run, scorers = asked
    assert (run.tasks, run.arms) == (("mmvu_val", "mvbench_action_count"), ("storm", "cot"))
    assert (run.data_root, run.out, run.limit) == (tmp_path, tmp_path / "out", 5)
    assert run.arguments("storm") == {
        "pretrained": "m",
        "num_latents": 4,
        "latents": "zero",
        "max_frames": 32,
        "batch_size": 1,
    }
    assert scorers == ("lmms",)


def test_all_benchmarks_are_the_default(asked):
    assert evaluate("--model", "m").exit_code == 0
    assert len(asked[0].tasks) == 1 + 20 + 4 + 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--tasks", "mvbenhc"], "storm: There is no benchmark 'mvbenhc'; expected videomme, "),
        (["--arms", "latent"], "storm: There is no arm 'latent'; expected some of storm, direct, cot.\n"),
        (["--data-root", "."], "storm: The questions of lmms-eval/Video-MME are not in "),
    ],
)
def test_what_cannot_be_ends_with_one_sentence(monkeypatch, checkpoint, tmp_path, arguments, sentence):
    monkeypatch.setattr(harness, "find_spec", lambda name: object())
    result = evaluate("--model", checkpoint, "--out", tmp_path, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr


def test_missing_lmms_eval_ends_with_the_command_that_gets_it(monkeypatch, tmp_path):
    def missing(package):
        raise MissingExtraError(f"`{package}` is missing. Install it with: pip install 'storm-hf[evaluation]'")

    monkeypatch.setattr(harness, "find_spec", lambda name: None)
    monkeypatch.setattr(harness, "require", missing)
    result = evaluate("--model", "m", "--out", tmp_path)
    assert result.exit_code == 2
    assert "pip install 'storm-hf[evaluation]'" in result.stderr
