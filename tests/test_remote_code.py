"""A checkpoint carries its own code: another interpreter, in which `storm_hf` cannot be imported, loads it and answers."""

import json
import subprocess
import sys

import pytest
import torch
from tests.tiny import KINDS, VISION_TOKENS, tiny_inputs, tiny_processor, tiny_storm

from storm_hf.model import StormForConditionalGeneration, add_latent_tokens


AUTO_CLASSES = ("AutoModel", "AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoModelForMultimodalLM")
CHILD = """
import json, sys
from pathlib import Path

sys.modules["storm_hf"] = None  # importing it raises ImportError

import torch, transformers

root = Path(sys.argv[1])


def load(auto_class, folder):
    return getattr(transformers, auto_class).from_pretrained(folder, trust_remote_code=True).eval()


def facts(model, inputs, expected):
    with torch.no_grad():
        logits = model(**inputs).logits
    answer = model.generate(**inputs, max_new_tokens=3, do_sample=False, suppress_tokens=[100, 101, 102, 103])
    return {
        "class": type(model).__name__,
        "module": type(model).__module__,
        "same logits": torch.equal(logits, expected["logits"]),
        "same answer": torch.equal(answer, expected["answer"]),
    }


report = {}
for folder in sorted(root.glob("kind_*")):
    saved = torch.load(folder / "expected.pt")
    model = load("AutoModel", folder)
    report[folder.name] = facts(model, saved["inputs"], saved)
    if folder.name == "kind_qwen2_5_vl":
        for auto_class in sys.argv[2:]:
            report[auto_class] = facts(load(auto_class, folder), saved["inputs"], saved)
        model.save_pretrained(root / "saved_again")
        report["saved again"] = facts(load("AutoModel", root / "saved_again"), saved["inputs"], saved)
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=True)
        report["AutoConfig"] = [type(config).__name__, config.num_latents, config.vlm_config.model_type]
        processor = transformers.AutoProcessor.from_pretrained(folder, trust_remote_code=True)
        message = [{"role": "user", "content": "left or right?"}]
        report["prompt"] = processor.apply_chat_template(message, add_generation_prompt=True, num_latents=2)
        try:
            model(torch.tensor([[5, 110, 110, 112]]))
        except ValueError as error:
            report["error"] = [type(error).__name__, type(error).__mro__[1].__name__]
print(json.dumps(report))
"""
CHILD_WITH_ANOTHER_VERSION = """
import sys

sys.modules["storm_hf"] = None

import transformers

transformers.__version__ = sys.argv[2]
model = transformers.AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
print(type(model).__name__)
"""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A saved checkpoint of each kind, with the logits and the answer that it gives here."""
    root = tmp_path_factory.mktemp("checkpoints")
    for kind in KINDS:
        model, inputs = tiny_storm(kind), tiny_inputs(kind)
        model.save_pretrained(root / f"kind_{kind}")
        with torch.no_grad():
            logits = model(**inputs).logits
        answer = model.generate(**inputs, max_new_tokens=3, do_sample=False, suppress_tokens=VISION_TOKENS)
        torch.save({"inputs": inputs, "logits": logits, "answer": answer}, root / f"kind_{kind}" / "expected.pt")
    add_latent_tokens(tiny_processor(), num_latents=4).save_pretrained(root / "kind_qwen2_5_vl")
    return root


@pytest.fixture(scope="module")
def report(checkpoints):
    """Result of the other interpreter."""
    command = [sys.executable, "-c", CHILD, str(checkpoints), *AUTO_CLASSES]
    child = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout.splitlines()[-1])


@pytest.mark.parametrize("loaded", [*(f"kind_{kind}" for kind in KINDS), *AUTO_CLASSES, "saved again"])
def test_checkpoint_answers_the_same_to_the_last_bit(report, loaded):
    facts = report[loaded]
    assert facts["class"] == "StormForConditionalGeneration"
    assert facts["module"].startswith("transformers_modules.")
    assert facts["same logits"]
    assert facts["same answer"]


def test_configuration_loads(report):
    assert report["AutoConfig"] == ["StormConfig", 4, "qwen2_5_vl"]


def test_processor_writes_the_latent_block(report):
    assert report["prompt"].endswith("assistant\n<|latent_start|><|latent|><|latent|><|latent_end|>")


def test_errors_are_those_of_the_checkpoints_own_tree(report):
    assert report["error"] == ["LatentError", "StormError"]


def test_checkpoint_holds_its_code_and_weights_only_as_safetensors(checkpoints):
    files = {file.name for file in (checkpoints / "kind_qwen3_vl").iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "modeling_storm.py"} <= files
    assert not [name for name in files if name.endswith(".bin")]


def test_installed_package_reads_the_same_checkpoint_with_its_own_code(checkpoints):
    model = StormForConditionalGeneration.from_pretrained(checkpoints / "kind_qwen2_5_vl")
    saved = torch.load(checkpoints / "kind_qwen2_5_vl" / "expected.pt")
    with torch.no_grad():
        assert torch.equal(model(**saved["inputs"]).logits, saved["logits"])


def run_with_version(folder, version):
    command = [sys.executable, "-c", CHILD_WITH_ANOTHER_VERSION, str(folder / "kind_qwen2_5_vl"), version]
    return subprocess.run(command, capture_output=True, text=True)


def test_checkpoint_loaded_by_an_older_transformers_says_what_to_install(checkpoints):
    child = run_with_version(checkpoints, "5.23.0")
    assert child.returncode == 1
    assert (
        child.stderr.strip()
        .splitlines()[-1]
        .endswith(
            "DependencyError: STORM needs transformers 5.24 or newer, got 5.23.0. Run `pip install --upgrade 'transformers>=5.24'`."
        )
    )


def test_checkpoint_loaded_by_a_newer_transformers_warns_and_loads(checkpoints):
    child = run_with_version(checkpoints, "5.99.0")
    assert child.stdout.strip() == "StormForConditionalGeneration"
    assert "STORM was tested with transformers up to 5.24, and this is 5.99.0" in child.stderr
