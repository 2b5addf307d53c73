import json
import shutil

import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file, save_file

from storm_hf.errors import CheckpointError
from storm_hf.evaluation.loading import load_checkpoint, worlds_only
from storm_hf.model import StormConfig, StormForConditionalGeneration
from storm_hf.training.adapter import default_lora
from storm_hf.training.adapter_folder import save_storm_config


@pytest.fixture
def copy(checkpoint, tmp_path):
    return shutil.copytree(checkpoint, tmp_path / "model")


def test_checkpoint_is_loaded_with_the_class_of_this_package_ready_to_answer(checkpoint):
    model, processor = load_checkpoint(str(checkpoint))
    assert type(model) is StormForConditionalGeneration
    assert not model.training
    assert "<|latent|>" in processor.tokenizer.get_vocab()


def test_what_a_model_was_trained_on_survives_saving(checkpoint):
    assert worlds_only(load_checkpoint(str(checkpoint))[0].config) == ("shuffle",)


@pytest.mark.parametrize(
    ("trained_on", "worlds"),
    [
        (["world:shuffle", "world:order"], ("shuffle", "order")),
        (["world:shuffle", "storm-thoughts"], ()),
        ([], ()),
        (None, ()),
    ],
)
def test_only_worlds_count_as_worlds_only(trained_on, worlds):
    assert worlds_only(StormConfig(trained_on=trained_on)) == worlds


def test_plain_backbone_is_refused_by_its_name(qwen_checkpoint):
    with pytest.raises(CheckpointError, match="is a qwen2_5_vl model, not a STORM"):
        load_checkpoint(str(qwen_checkpoint))


def test_missing_weight_is_an_error_not_a_random_weight(copy):
    weights = load_file(copy / "model.safetensors")
    del weights["model.latent_projector." + next(k for k in weights if "latent_projector" in k).split(".", 2)[2]]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="1 are missing or superfluous.*latent_projector"):
        load_checkpoint(str(copy))


def test_cut_off_weights_are_named(copy):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="weights of .* cannot be loaded"):
        load_checkpoint(str(copy))


def test_missing_weights_are_named(copy):
    (copy / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="weights of .* cannot be loaded"):
        load_checkpoint(str(copy))


def test_missing_processor_is_named(copy):
    for name in ("processor_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (copy / name).unlink()
    with pytest.raises(CheckpointError, match="processor of .* cannot be loaded"):
        load_checkpoint(str(copy))


@pytest.mark.parametrize("content", ["{", json.dumps({"model_type": "no_such_model"})], ids=["cut off", "unknown"])
def test_config_that_cannot_be_read_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match="config.json of .* cannot be read"):
        load_checkpoint(str(tmp_path))


def test_empty_folder_and_file_are_told_apart(tmp_path):
    with pytest.raises(CheckpointError, match="holds no model"):
        load_checkpoint(str(tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="is a file"):
        load_checkpoint(str(tmp_path / "file"))


@pytest.mark.parametrize("name", ["runs/no/such", "./no-such", "{}/no-such", "no such/model"])
def test_folder_that_is_not_there_is_not_looked_for_on_the_hub(tmp_path, name):
    with pytest.raises(CheckpointError, match="There is no model folder [^,]*$"):
        load_checkpoint(name.format(tmp_path))


def test_name_that_may_be_one_of_the_hub_is_looked_for_there():
    with pytest.raises(CheckpointError, match="had from the Hub"):
        load_checkpoint("no-such-owner/no-such-model")


@pytest.fixture
def adapter(checkpoint, tmp_path):
    """An adapter on the checkpoint, with another scale."""
    model, processor = load_checkpoint(str(checkpoint))
    model.config.latent_scale = 0.25
    adapted = get_peft_model(model, default_lora(model, r=2))
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.add_(0.05)
    adapted.save_pretrained(tmp_path / "adapter")
    save_storm_config(model.config, tmp_path / "adapter")
    processor.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", adapted


needs_peft = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@needs_peft
@torch.no_grad()
def test_adapter_is_opened_with_its_base_ready_to_answer(adapter):
    folder, adapted = adapter
    model, processor = load_checkpoint(str(folder))
    assert type(model) is StormForConditionalGeneration
    assert not model.training
    assert worlds_only(model.config) == ("shuffle",)
    start, latent, end = model.config.latent_block_ids
    tokens = torch.tensor([[3, 4, start, latent, latent, end]])
    assert torch.equal(model(tokens).logits, adapted.eval()(tokens).logits)


@needs_peft
def test_adapter_without_a_weight_is_an_error(adapter):
    weights = load_file(adapter[0] / "adapter_model.safetensors")
    weights.pop(next(name for name in weights if "latent_projector" in name))
    save_file(weights, adapter[0] / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"does not fit .*1 weights are missing.*latent_projector"):
        load_checkpoint(str(adapter[0]))


@needs_peft
def test_adapter_without_weights_is_named(adapter):
    (adapter[0] / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="weights of .* cannot be loaded"):
        load_checkpoint(str(adapter[0]))
