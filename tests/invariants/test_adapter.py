"""A run with an adapter: what moves, what is saved, that it resumes exactly, and that it opens the same everywhere."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tests.tiny import KINDS, VISION_TOKENS, tiny_inputs, tiny_storm
from tests.training.tiny_training import NUM_LATENTS, STAGES, logged, tiny_trainer
from torch.testing import assert_close
from transformers import AutoModelForImageTextToText, set_seed

from storm_hf.errors import CheckpointError
from storm_hf.model import StormForConditionalGeneration
from storm_hf.training.peft import default_lora


# `peft/peft_model.py` of PEFT 0.21.2 reads a name that transformers 5.23 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

WEIGHTS = "adapter_model.safetensors"
BOTH_STAGES = ("qwen2_5_vl", "qwen3_5")  # plain attention, and a recurrent state; the others in Stage II alone
RUNS = [
    pytest.param(stage, kind, marks=[pytest.mark.slow] if stage == "align" and kind not in BOTH_STAGES else [])
    for kind in KINDS
    for stage in STAGES
]


def adapted_storm(kind, folder=None, **lora):
    """A tiny STORM with the default adapter, whose base lies in a folder if one is given."""
    model = tiny_storm(kind, num_latents=NUM_LATENTS)
    if folder is not None:
        model.save_pretrained(folder)
        model = StormForConditionalGeneration.from_pretrained(folder)
    set_seed(0)
    return get_peft_model(model, default_lora(model, **{"r": 4, "alpha": 8, **lora}))


def lora_trainer(stage, kind, folder, base=None, lora=None, **config):
    return tiny_trainer(stage, kind, folder, model=adapted_storm(kind, base, **(lora or {})), **config)


@pytest.mark.parametrize("stage", STAGES)
def test_exactly_the_adapter_and_the_projector_change(stage, kind, tmp_path):
    trainer = lora_trainer(stage, kind, tmp_path)
    before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    trainer.train()
    changed = {name for name, weight in trainer.model.named_parameters() if not torch.equal(weight, before[name])}
    assert changed == {name for name in before if ".lora_" in name or "latent_projector.modules_to_save" in name}


@pytest.mark.parametrize(("stage", "kind"), RUNS)
def test_checkpointed_layers_change_no_number(stage, kind, tmp_path):
    runs = {}
    for is_on in (False, True):
        trainer = lora_trainer(stage, kind, tmp_path, gradient_checkpointing=is_on, lora={"dropout": 0.0})
        trainer.train()
        runs[is_on] = trainer
        layers = [module for module in trainer.model.modules() if hasattr(module, "_gradient_checkpointing_func")]
        functions = [layer._gradient_checkpointing_func for layer in layers]
        assert not is_on or {function.keywords["use_reentrant"] for function in functions} == {False}
    for name in ("loss", "grad_norm"):
        assert_close(logged(runs[True], name), logged(runs[False], name), rtol=1e-5, atol=1e-6)


def test_adapter_on_a_plain_checkpoint_is_saved_by_peft_too(qwen_checkpoint, tmp_path):
    model = StormForConditionalGeneration.from_backbone(qwen_checkpoint, NUM_LATENTS)
    get_peft_model(model, default_lora(model, r=2)).save_pretrained(tmp_path)
    assert not [name for name in load_file(tmp_path / WEIGHTS) if "embed_tokens" in name]


def test_adapter_in_the_trainers_own_argument_is_the_same(tmp_path):
    def losses(trainer):
        trainer.train()
        return logged(trainer, "loss")

    given = lora_trainer("align", "qwen2_5_vl", tmp_path, seed=0, lora={"dropout": 0.0})
    model = tiny_storm("qwen2_5_vl", num_latents=NUM_LATENTS)
    own = type(given)(
        model=model,
        args=given.args,
        train_dataset=given.train_dataset,
        processing_class=given.processing_class,
        data_collator=given.data_collator,
        peft_config=default_lora(model, r=4, alpha=8, dropout=0.0),
    )
    assert losses(own) == losses(given)


@pytest.mark.parametrize("stage", STAGES)
def test_loss_falls_with_the_embeddings_of_the_latent_tokens_as_they_were(stage, tmp_path):
    trainer = lora_trainer(stage, "qwen2_5_vl", tmp_path, max_steps=25, learning_rate=1e-2, num_rows=4)
    trainer.train()
    losses = logged(trainer, "loss")
    assert losses[-1] < 0.75 * losses[0]


# --- what is saved ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_adapter_alone_is_saved_with_what_it_takes_to_open_it(stage, tmp_path):
    base, run = tmp_path / "base", tmp_path / "run"
    trainer = lora_trainer(stage, "qwen2_5_vl", run, base, save_strategy="steps", save_steps=2)
    trainer.train()
    trainer.save_model()
    for folder in (run, run / "checkpoint-2"):
        files = {file.name for file in folder.iterdir()}
        assert {WEIGHTS, "adapter_config.json", "storm_config.json", "README.md", "tokenizer.json"} <= files
        assert not {"model.safetensors", "config.json"} & files
        assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)
        card = (folder / "README.md").read_text()
        assert "a LoRA adapter of" in card
        assert f"storm-{stage}" in card
        assert "More Information Needed" not in card
    assert all("lora_" in name or "latent_projector" in name for name in load_file(run / WEIGHTS))


# --- resuming -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_resumed_run_equals_the_uninterrupted_one(stage, tmp_path):
    saved = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    whole = lora_trainer(stage, "qwen2_5_vl", tmp_path, **saved)
    whole.train()
    shutil.rmtree(tmp_path / "checkpoint-4")
    resumed = lora_trainer(stage, "qwen2_5_vl", tmp_path, lora={"dropout": 0.05}, **saved)
    resumed.train(resume_from_checkpoint=True)
    for name in ("loss", "grad_norm"):
        assert logged(resumed, name) == logged(whole, name)
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight), name


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with an adapter that ended after one step."""
    folder = tmp_path_factory.mktemp("run")
    base = folder / "base"
    trainer = lora_trainer("answer", "qwen2_5_vl", folder, base, max_steps=1, save_strategy="steps", save_steps=1)
    with torch.no_grad():
        for name, weight in trainer.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    trainer.train()
    trainer.save_model()
    return folder


def edited(run, folder, edit):
    """A copy of the run whose adapter was edited."""
    copy = shutil.copytree(run, folder / "run")
    for file in (copy / WEIGHTS, copy / "checkpoint-1" / WEIGHTS):
        weights = load_file(file)
        edit(weights)
        save_file(weights, file, metadata={"format": "pt"})
    return copy


PROJECTOR = "base_model.model.model.latent_projector.layers.1.weight"
BREAKS = {
    "missing projector": lambda weights: weights.pop(PROJECTOR),
    "missing update": lambda weights: weights.pop(next(name for name in weights if "lora_A" in name)),
    "superfluous weight": lambda weights: weights.update({"base_model.model.other.lora_A.weight": torch.zeros(4, 32)}),
    "another shape": lambda weights: weights.update({PROJECTOR: torch.zeros(16, 16)}),
}


@pytest.mark.parametrize("edit", BREAKS.values(), ids=BREAKS)
def test_adapter_that_is_not_whole_is_not_resumed_from(run, tmp_path, edit):
    copy = edited(run, tmp_path, edit)
    with pytest.raises(CheckpointError, match="does not fit the model: 1 weights"):
        lora_trainer("answer", "qwen2_5_vl", copy).train(resume_from_checkpoint=True)


def test_adapter_of_another_rank_is_not_resumed_from(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    with pytest.raises(CheckpointError, match="Use the rank"):
        lora_trainer("answer", "qwen2_5_vl", copy, lora={"r": 2}).train(resume_from_checkpoint=True)


def test_whole_model_is_no_checkpoint_of_an_adapter(tmp_path):
    tiny_trainer("answer", "qwen2_5_vl", tmp_path, max_steps=1, save_strategy="steps", save_steps=1).train()
    with pytest.raises(CheckpointError, match="does not fit the model"):
        lora_trainer("answer", "qwen2_5_vl", tmp_path).train(resume_from_checkpoint=True)


# --- opening ------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def answer_of(model, kind):
    """Logits, latents and a greedy answer."""
    inputs = tiny_inputs(kind, num_latents=NUM_LATENTS)
    output = model.eval()(**inputs)
    tokens = model.generate(**inputs, max_new_tokens=3, do_sample=False, suppress_tokens=VISION_TOKENS)
    return output.logits, output.latents, tokens


@pytest.fixture(scope="session")
def opened(kind, tmp_path_factory):
    """A saved adapter and the merged model, each with the answer that it gave, beside their base."""
    return save_adapter(kind, tmp_path_factory.mktemp(kind))


def disturbed(adapted):
    """An adapter as training leaves it: the updates are not zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.05)
    return adapted


def save_adapter(kind, root):
    adapted = disturbed(adapted_storm(kind, root / "base"))
    adapted.save_pretrained(root / "adapter")
    torch.save(answer_of(adapted, kind), root / "adapter" / "expected.pt")
    merged = adapted.merge_and_unload()
    merged.save_pretrained(root / "merged")
    torch.save(answer_of(merged, kind), root / "merged" / "expected.pt")
    return root


def test_auto_class_opens_an_adapter(opened, kind):
    folder = opened / "adapter"
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert type(model) is StormForConditionalGeneration
    for part, expected in zip(answer_of(model, kind), torch.load(folder / "expected.pt"), strict=True):
        assert torch.equal(part, expected)


def test_adapter_matters(opened, kind):
    base = answer_of(StormForConditionalGeneration.from_pretrained(opened / "base"), kind)
    for part, expected in zip(base[:2], torch.load(opened / "adapter" / "expected.pt")[:2], strict=True):
        assert (part - expected).abs().max() > 0.1


def test_peft_opens_an_adapter(opened, kind):
    base = StormForConditionalGeneration.from_pretrained(opened / "base")
    folder = opened / "adapter"
    model = PeftModel.from_pretrained(base, folder)
    for part, expected in zip(answer_of(model, kind), torch.load(folder / "expected.pt"), strict=True):
        assert torch.equal(part, expected)


def test_merged_model_is_the_adapted_one(kind):
    adapted = disturbed(adapted_storm(kind)).double()  # in single precision, a machine's rounding is compared
    logits, latents, tokens = answer_of(adapted, kind)
    merged = answer_of(adapted.merge_and_unload(), kind)
    assert_close(merged[0] / logits.abs().max(), logits / logits.abs().max(), rtol=0, atol=1e-12)
    assert_close(merged[1], latents, rtol=0, atol=1e-12)
    assert torch.equal(merged[2], tokens)


CHILD = """
import json, sys
from pathlib import Path

sys.modules["storm_hf"] = None  # importing it raises ImportError

import torch
from transformers import AutoModelForImageTextToText

report = {}
root = Path(sys.argv[1])
inputs = torch.load(root / "inputs.pt")
for name in ("adapter", "merged"):
    model = AutoModelForImageTextToText.from_pretrained(root / name, trust_remote_code=True).eval()
    with torch.no_grad():
        output = model(**inputs)
        tokens = model.generate(**inputs, max_new_tokens=3, do_sample=False, suppress_tokens=[100, 101, 102, 103])
    expected = torch.load(root / name / "expected.pt")
    same = [torch.equal(*pair) for pair in zip((output.logits, output.latents, tokens), expected, strict=True)]
    report[name] = [type(model).__module__.partition(".")[0], *same]
print(json.dumps(report))
"""


def test_adapter_and_merged_model_open_where_the_package_is_not_installed(tmp_path):
    root = save_adapter("qwen2_5_vl", tmp_path)
    torch.save(tiny_inputs("qwen2_5_vl", num_latents=NUM_LATENTS), root / "inputs.pt")
    child = subprocess.run([sys.executable, "-c", CHILD, str(root)], capture_output=True, text=True, timeout=300)
    assert child.returncode == 0, child.stderr
    same = ["transformers_modules", True, True, True]
    assert json.loads(child.stdout.splitlines()[-1]) == {"adapter": same, "merged": same}
