import os
from dataclasses import replace
from importlib.util import find_spec

import pytest

from storm_hf.errors import (
    CheckpointError,
    ConfigurationError,
    DatasetError,
    DependencyError,
    StageError,
    StaleWorkError,
)
from storm_hf.evaluation.harness import launch
from storm_hf.evaluation.harness import run as run_module
from storm_hf.evaluation.harness.run import EvaluationRun, evaluate
from storm_hf.evaluation.harness.task_process import samples_file


@pytest.fixture
def run(storm_checkpoint, data_root, tmp_path):
    tasks = ("videomme", "mmvu_val")
    return EvaluationRun(
        str(storm_checkpoint), tasks, tmp_path / "run", data_root=data_root, settings={"max_frames": 4}
    )


@pytest.fixture
def fake_lmms_eval(monkeypatch):
    """Says that lmms-eval is installed, and runs a line of Python in its place; what it would have done is returned."""
    monkeypatch.setattr(run_module, "find_spec", lambda name: object())

    def use(line):
        stock, commands = launch.subprocess.Popen, []

        def start(command, **arguments):
            commands.append((command, arguments["env"]))
            return stock([command[0], "-c", line], **arguments)

        monkeypatch.setattr(launch.subprocess, "Popen", start)
        return commands

    return use


def finish(run, variant, task):
    path = samples_file(run.folder(variant), variant, task)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_arms_differ_in_nothing_but_how_they_think(run):
    run = replace(run, settings={"max_frames": 4, "num_latents": 3, "latents": "zero", "fps": None})
    model = {"pretrained": run.model, "max_frames": 4}
    assert run.arguments("storm") == {**model, "num_latents": 3, "latents": "zero"}
    assert run.arguments("direct") == {**model, "num_latents": 0, "latents": "own", "prompt": "direct"}
    assert run.arguments("cot") == {**model, "num_latents": 0, "latents": "own", "prompt": "cot"}
    assert replace(run, backbone="plain").arguments("cot")["pretrained"] == "plain"


def test_finished_pairs_are_not_run_again(run, fake_lmms_eval):
    commands = fake_lmms_eval("")
    finish(run, "storm", "videomme")
    finish(run, "direct", "videomme")
    finish(run, "direct", "mmvu_val")
    evaluate(run)
    assert [command[-1].count("videomme") for command, _ in commands] == [0]
    assert '"tasks": ["mmvu_val"]' in commands[0][0][-1]


def test_tasks_find_the_local_copy_and_models_their_cache(run, fake_lmms_eval, data_root, monkeypatch):
    monkeypatch.delenv("HF_HOME", raising=False)  # a task of TempCompass does not load without it
    commands = fake_lmms_eval("")
    evaluate(replace(run, variants=("storm",)))
    environment = commands[0][1]
    assert environment["HF_HOME"] == str(data_root)
    assert environment["HF_HUB_CACHE"] == run_module.constants.HF_HUB_CACHE
    evaluate(replace(run, variants=("direct",), data_root=None))
    assert commands[1][1]["HF_HOME"] == run_module.constants.HF_HOME


def test_progress_counts_answers(run, fake_lmms_eval):
    fake_lmms_eval("")
    folder = run.folder("storm")
    folder.mkdir(parents=True)
    (folder / "answers-0.jsonl").write_text("{}\n{}\n")
    told = []
    evaluate(replace(run, variants=("storm",), limit=3), lambda *news: told.append(news))
    assert told[-1] == ("storm", 2, 6)


def test_several_processes_share_a_variant_and_a_single_one_has_no_rank(run, fake_lmms_eval, monkeypatch):
    of_job = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "8", "GROUP_RANK": "0"}
    of_job |= {"ROLE_RANK": "5", "TORCHELASTIC_USE_AGENT_STORE": "True", "ACCELERATE_USE_DEEPSPEED": "true"}
    for name, value in of_job.items():
        monkeypatch.setenv(name, value)  # the command runs in a job of torchrun
    commands = fake_lmms_eval("")
    evaluate(replace(run, variants=("storm",), num_processes=2))
    evaluate(replace(run, variants=("direct",)))
    assert [variables.get("RANK") for _, variables in commands] == ["0", "1", None]
    assert [variables.get("WORLD_SIZE") for _, variables in commands] == ["2", "2", None]
    assert [variables.get("LOCAL_RANK") for _, variables in commands] == ["0", "1", None]
    assert [variables.get("LOCAL_WORLD_SIZE") for _, variables in commands] == ["2", "2", None]
    others = of_job.keys() - {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"}
    assert not any(others & variables.keys() for _, variables in commands)
    assert commands[0][0] == commands[1][0]


def test_accelerate_takes_a_single_process_for_none_of_the_job(run, fake_lmms_eval, monkeypatch):
    """lmms-eval makes an `Accelerator`, which would wait for the others."""
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "ACCELERATE_USE_FSDP": "true"}.items():
        monkeypatch.setenv(name, value)
    fake_lmms_eval(
        "from accelerate import Accelerator; told = Accelerator()\n"
        "assert (told.num_processes, str(told.distributed_type)) == (1, 'DistributedType.NO')"
    )
    evaluate(replace(run, variants=("storm",)))


def test_run_goes_on_with_another_number_of_processes(run, fake_lmms_eval):
    commands = fake_lmms_eval("")
    for number in (2, 3, 1):
        evaluate(replace(run, variants=("storm",), num_processes=number))
    ranks = [(variables.get("RANK"), variables.get("WORLD_SIZE")) for _, variables in commands]
    assert ranks == [("0", "2"), ("1", "2"), ("0", "3"), ("1", "3"), ("2", "3"), (None, None)]


def test_error_of_any_process_is_told(run, fake_lmms_eval):
    fake_lmms_eval(
        "import os, sys, time\n"
        "if os.environ['RANK'] == '0': time.sleep(600)\n"
        "sys.stderr.write('storm: The video is away.\\n'); sys.exit(2)"
    )
    with pytest.raises(StageError, match=r"^The video is away\.$"):
        evaluate(replace(run, num_processes=2))


def test_sentence_of_the_process_is_the_error(run, fake_lmms_eval):
    fake_lmms_eval("import sys; print('noise'); sys.stderr.write('storm: The video is away.\\n'); sys.exit(2)")
    with pytest.raises(StageError, match=r"^The video is away\.$"):
        evaluate(run)


def test_crash_is_told_with_the_log(run, fake_lmms_eval):
    fake_lmms_eval("raise SystemExit('segments are at fault')")
    with pytest.raises(StageError, match=r"code 1: segments are at fault\. All .*lmms_eval\.log"):
        evaluate(run)


def test_error_that_was_retried_is_told_and_not_its_wrapper(run, fake_lmms_eval):
    fake_lmms_eval("""
class RetryError(Exception):
    __module__ = "tenacity"

try:
    raise ConnectionError("no route")
except ConnectionError as error:
    raise RetryError("many times") from error
""")
    with pytest.raises(
        StageError, match=r"code 1: ConnectionError: no route\. Where there is no network, .*--data-root"
    ):
        evaluate(run)


def test_folder_with_other_settings_is_refused(run, fake_lmms_eval):
    fake_lmms_eval("")
    evaluate(run)
    evaluate(replace(run, settings={"max_frames": 4, "batch_size": 8}, tasks=("mmvu_val",)))
    with pytest.raises(StaleWorkError, match="max_frames was 4 and is now 8"):
        evaluate(replace(run, settings={"max_frames": 8}))
    with pytest.raises(StaleWorkError, match="limit was None and is now 5"):
        evaluate(replace(run, limit=5))


def test_run_that_another_decoder_began_is_refused(run, fake_lmms_eval, monkeypatch):
    fake_lmms_eval("")
    evaluate(run)
    evaluate(replace(run, settings={"max_frames": 4, "batch_size": 8, "video_backend": "pyav"}))
    with pytest.raises(StaleWorkError, match="video_backend"):
        evaluate(replace(run, settings={**run.settings, "video_backend": "decord"}))
    monkeypatch.setenv("STORM_VIDEO_BACKEND", "decord")
    with pytest.raises(StaleWorkError, match="video_backend"):
        evaluate(run)


def test_model_trained_further_is_refused_in_the_folder_of_the_old_one(run, fake_lmms_eval):
    fake_lmms_eval("")
    evaluate(run)
    weights = next(run.out.parent.glob("none"), None) or os.path.join(run.model, "model.safetensors")
    stat = os.stat(weights)
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    try:
        with pytest.raises(StaleWorkError, match="weights was"):
            evaluate(run)
    finally:
        os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"variants": ("storm", "latent")}, ConfigurationError, "no variant 'latent'"),
        ({"variants": ()}, ConfigurationError, "at least one variant"),
        ({"num_processes": 0}, ConfigurationError, "`num_processes` must be a whole number of 1 or more, got 0"),
        (
            {"num_processes": 2, "settings": {"device_map": "auto"}},
            ConfigurationError,
            "`device_map` .* set num_processes=1",
        ),
        (
            {"tasks": ("tempcompass_captioning",), "data_root": "empty"},
            DatasetError,
            "hf download lmms-eval/TempCompass",
        ),
    ],
)
def test_what_cannot_be_run_is_told_before_anything_starts(run, fake_lmms_eval, tmp_path, change, error, told):
    commands = fake_lmms_eval("")
    change = {name: tmp_path if value == "empty" else value for name, value in change.items()}
    with pytest.raises(error, match=told):
        evaluate(replace(run, **change))
    assert not commands


def test_plain_checkpoint_is_no_storm(run, fake_lmms_eval, qwen_checkpoint):
    fake_lmms_eval("")
    plain = replace(run, model=str(qwen_checkpoint))
    with pytest.raises(CheckpointError, match="--variant direct --variant cot"):
        evaluate(plain)
    evaluate(replace(plain, variants=("direct", "cot")))


def test_missing_lmms_eval_is_told(run, monkeypatch):
    def missing(name):
        raise DependencyError("pip install 'storm-hf[evaluation]'")

    monkeypatch.setattr(run_module, "find_spec", lambda name: None)
    monkeypatch.setattr(run_module, "require", missing)
    with pytest.raises(DependencyError, match="evaluation"):
        evaluate(run)
    assert find_spec("storm_hf.evaluation.harness.chat_model") is not None  # found, but not imported
