import json
import logging
import shutil

import numpy as np
import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file, save_file
from tests.training.tiny_videos import load_tiny
from transformers import AutoProcessor

from storm_hf.checkpoints.adapter import save_storm_config
from storm_hf.checkpoints.loading import load_checkpoint
from storm_hf.errors import CheckpointError
from storm_hf.hub.card_metadata import worlds_only
from storm_hf.inputs.prompts import PromptEncoder
from storm_hf.model import PromptRecord, StormConfig, StormForConditionalGeneration, add_latent_tokens
from storm_hf.model.processing_storm import write_record
from storm_hf.training.peft import default_lora


@pytest.fixture
def copy(checkpoint, tmp_path):
    return shutil.copytree(checkpoint, tmp_path / "model")


def test_checkpoint_is_loaded_with_the_class_of_this_package_ready_to_answer(checkpoint):
    model, processor = load_checkpoint(str(checkpoint))
    assert type(model) is StormForConditionalGeneration
    assert not model.training
    assert "<|latent|>" in processor.tokenizer.get_vocab()


def test_what_a_model_was_trained_on_survives_saving(checkpoint):
    assert worlds_only(load_checkpoint(str(checkpoint))[0].config.trained_on) == ("shuffle",)


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
    assert worlds_only(StormConfig(trained_on=trained_on).trained_on) == worlds


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


def test_folder_above_those_of_models_names_them(tmp_path):
    for name in ("base", "storm"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").touch()
    with pytest.raises(CheckpointError, match=f"There is one in {tmp_path}/base and in {tmp_path}/storm.$"):
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
    assert worlds_only(model.config.trained_on) == ("shuffle",)
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


def replace_processor(folder, change):
    processor = AutoProcessor.from_pretrained(folder)
    change(processor)
    processor.save_pretrained(folder)


def drop_block(processor):
    processor.chat_template = processor.chat_template.partition("{#- the latent block")[0]


@pytest.fixture
def asked_in_letters(copy):
    """A checkpoint whose run asked with letters and read six frames."""
    model, processor = load_checkpoint(str(copy))
    sampler = processor.video_processor
    sampler.do_sample_frames, sampler.num_frames, sampler.fps = True, 6, None
    write_record(PromptRecord(4, "letters", ("options",), num_frames=6), model.config, processor)
    model.save_pretrained(copy)
    processor.save_pretrained(copy)
    return copy


def test_checkpoint_is_asked_as_it_was_trained(asked_in_letters, caplog):
    model, processor = load_checkpoint(str(asked_in_letters))
    assert PromptEncoder(processor, model.config, 4).question_style == "letters"
    assert model.config.prompt_record.frames == {"num_frames": 6}
    assert caplog.text == ""


def test_checkpoint_without_a_record_is_asked_as_before(checkpoint, caplog):
    model, processor = load_checkpoint(str(checkpoint))
    assert model.config.storm_prompt is None
    assert PromptEncoder(processor, model.config, 4).question_style == "words"
    assert caplog.text == ""


@pytest.mark.parametrize("part", ["block", "tokens"])
def test_processor_that_cannot_write_the_prompts_is_refused(part, copy, qwen_checkpoint):
    if part == "block":
        replace_processor(copy, drop_block)
    else:
        AutoProcessor.from_pretrained(qwen_checkpoint).save_pretrained(copy)
    with pytest.raises(
        CheckpointError, match=r"processor in .* does not fit its model.*add_latent_tokens\(processor, 4\)"
    ):
        load_checkpoint(str(copy))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda processor: add_latent_tokens(processor, 8), "writes 8 latents, but the model has num_latents=4"),
        (lambda processor: setattr(processor.video_processor, "num_frames", 16), "reads frames by {'num_frames': 16}"),
        (lambda processor: add_latent_tokens(processor, 4, PromptRecord(4)), "question_style is 'words'"),
    ],
)
def test_processor_that_asks_otherwise_is_told_of(change, message, asked_in_letters, caplog):
    replace_processor(asked_in_letters, change)
    load_checkpoint(str(asked_in_letters))
    assert message in caplog.text


@needs_peft
def test_adapter_keeps_the_record(qwen_checkpoint, tmp_path):
    model, processor = load_tiny(qwen_checkpoint, 3)
    write_record(PromptRecord(3, "letters", ("options",), max_frames=32), model.config, processor)
    adapted = get_peft_model(model, default_lora(model))
    adapted.save_pretrained(tmp_path, save_embedding_layers=False)
    save_storm_config(model.config, tmp_path)
    processor.save_pretrained(tmp_path)
    loaded, _ = load_checkpoint(str(tmp_path))
    assert loaded.config.prompt_record == PromptRecord(3, "letters", ("options",), max_frames=32)


@pytest.mark.parametrize(
    ("forms", "options", "is_told"),
    [
        (("options",), None, True),
        (("options",), ["left", "right"], False),
        (("open",), ["left", "right"], True),
        (("open",), [], False),
        (("options", "open"), None, False),
        ((), None, False),
    ],
)
def test_question_of_a_form_that_was_not_trained_is_told_of_once(forms, options, is_told, checkpoint, caplog):
    model, processor = load_checkpoint(str(checkpoint))
    model.config.storm_prompt = {"question_forms": forms}
    clip = np.zeros((4, 32, 96, 3), np.uint8)
    logging.Logger.warning_once.cache_clear()
    encode = PromptEncoder(processor, model.config, 4)
    for _ in range(2):
        encode([{"video": clip, "question": "where is the ball ?", "options": options}])
    assert caplog.text.count("may be a guess") == is_told
