"""docs/train.md trains twice, in Python and by its scripts: the same settings log the same losses, to the last digit."""

import importlib.util
import json
from pathlib import Path

import pytest
from tests.docs.pages import ROOT, blocks
from trl import ScriptArguments, TrlParser

from storm_hf import StormAlignConfig, StormAnswerConfig, StormModelConfig


CONFIG_OF = {"align": StormAlignConfig, "answer": StormAnswerConfig}
MODEL = "Qwen/Qwen2.5-VL-7B-Instruct"  # a tiny stand-in, in the reader's folder
SETTINGS = {  # of the page's own Python block
    "num_latents": "8",
    "max_steps": "2",
    "per_device_train_batch_size": "2",
    "report_to": "none",
}
LOGGED = ("loss", "grad_norm", "learning_rate", "align_loss", "answer_loss", "latent_cosine")


def python_block() -> str:
    of_page = (block for block in blocks("python") if block.page.name == "train.md")
    (block,) = (block for block in of_page if "Trainer(" in block.text)
    return block.text


def in_python(stage: str, model: str, output: Path) -> None:
    """Run the page's block, with every step logged; for Stage II the same words with the other trainer."""
    code = python_block().replace("runs/mine/align", str(output)).replace(MODEL, model)
    code = code.replace("max_steps=2", "max_steps=2, logging_steps=1")
    if stage == "answer":
        code = code.replace("StormAlign", "StormAnswer")
    exec(compile(code, "docs/train.md", "exec"), {"__name__": "reader"})


def by_script(stage: str, model: str, output: Path) -> None:
    spec = importlib.util.spec_from_file_location(stage, ROOT / "trainers" / f"{stage}.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    settings = {
        "model_name_or_path": model,
        "dataset_name": "data/mine",
        "output_dir": str(output),
        "logging_steps": "1",
    }
    options = [part for name, value in {**SETTINGS, **settings}.items() for part in (f"--{name}", value)]
    script.main(*TrlParser((ScriptArguments, CONFIG_OF[stage], StormModelConfig)).parse_args_and_config(options))


def losses(output: Path) -> list[dict[str, float]]:
    history = json.loads((output / "checkpoint-2" / "trainer_state.json").read_text())["log_history"]
    return [{name: step[name] for name in LOGGED if name in step} for step in history]


def test_settings_of_the_script_are_those_of_the_block():
    assert all(f"{name}={value}" in python_block().replace('"', "") for name, value in SETTINGS.items())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:'pin_memory' argument:UserWarning")  # of torch, where there is no accelerator
def test_python_block_and_script_log_the_same_losses_in_both_stages(reader, tmp_path, monkeypatch):
    monkeypatch.chdir(reader)
    for train in (in_python, by_script):
        place = tmp_path / train.__name__
        train("align", MODEL, place / "align")
        train("answer", str(place / "align"), place / "storm")
    for stage in ("align", "storm"):
        one, other = (losses(tmp_path / way.__name__ / stage) for way in (in_python, by_script))
        assert [step["loss"] > 0 for step in one] == [True, True]
        assert one == other, stage
