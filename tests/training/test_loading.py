"""A run starts from a plain checkpoint, a STORM or an adapter, and finds its videos from anywhere."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model
from tests.training.tiny_videos import load_tiny, write_thoughts

from storm_hf.checkpoints.adapter import find_adapter, save_storm_config
from storm_hf.errors import CheckpointError, ConfigurationError, DatasetError
from storm_hf.model import StormForConditionalGeneration
from storm_hf.pipeline.paths import origin_of
from storm_hf.training.loading import StormModelConfig, load_rows, load_storm
from storm_hf.training.peft import peft_config


PROMPT = [{"role": "user", "content": [{"type": "text", "text": "Which cup?"}]}]


def num_placeholders(processor):
    return processor.apply_chat_template(PROMPT, add_generation_prompt=True, tokenize=False).count("<|latent|>")


@pytest.fixture(scope="module")
def storm_checkpoint(qwen_checkpoint, tmp_path_factory):
    """A STORM with three latents, saved with its processor."""
    model, processor = load_tiny(qwen_checkpoint, num_latents=3)
    folder = tmp_path_factory.mktemp("storm")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("num_latents", "expected"), [(None, 8), (2, 2), (0, 0), (70, 70)])
def test_plain_checkpoint_becomes_a_storm(qwen_checkpoint, num_latents, expected):
    model, processor = load_storm(StormModelConfig(model_name_or_path=str(qwen_checkpoint)), num_latents)
    assert model.config.num_latents == expected
    assert num_placeholders(processor) == expected


@pytest.mark.parametrize(("num_latents", "expected"), [(None, 3), (5, 5), (0, 0), (70, 70)])
def test_storm_is_loaded_with_its_own_weights(storm_checkpoint, num_latents, expected):
    args = StormModelConfig(model_name_or_path=str(storm_checkpoint))
    model, processor = load_storm(args, num_latents)
    assert model.config.num_latents == expected
    assert num_placeholders(processor) == expected
    original, _ = load_storm(args)
    for name, weight in original.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name


def test_projector_scale_and_attention_of_a_plain_checkpoint_can_be_chosen(qwen_checkpoint):
    chosen = {"latent_projector": "identity", "latent_scale": 1.0, "latent_attention": "step"}
    args = StormModelConfig(model_name_or_path=str(qwen_checkpoint), dtype="bfloat16", **chosen)
    model, _ = load_storm(args, 2)
    assert {name: getattr(model.config, name) for name in chosen} == chosen
    assert model.dtype == torch.bfloat16


def test_storm_keeps_its_projector(storm_checkpoint):
    args = StormModelConfig(model_name_or_path=str(storm_checkpoint), latent_projector="identity")
    with pytest.raises(CheckpointError, match="Expected `latent_projector: linear`"):
        load_storm(args)


def test_storm_keeps_its_attention_unless_told_otherwise(storm_checkpoint):
    kept, _ = load_storm(StormModelConfig(model_name_or_path=str(storm_checkpoint)))
    changed, _ = load_storm(StormModelConfig(model_name_or_path=str(storm_checkpoint), latent_attention="step"))
    assert (kept.config.latent_attention, changed.config.latent_attention) == ("full", "step")


def test_thought_adapter_is_put_on_once_and_kept(qwen_checkpoint, tmp_path):
    name = {"model_name_or_path": str(qwen_checkpoint)}
    model, processor = load_storm(StormModelConfig(**name, thought_adapter_rank=2), 3)
    assert model.config.thought_adapter == {"r": 2, "lora_alpha": 4}
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    for rank in (None, 2):
        again, _ = load_storm(StormModelConfig(model_name_or_path=str(tmp_path), thought_adapter_rank=rank))
        assert again.config.thought_adapter == model.config.thought_adapter
    with pytest.raises(ConfigurationError, match="`thought_adapter_rank: 2`, which the checkpoint has"):
        load_storm(StormModelConfig(model_name_or_path=str(tmp_path), thought_adapter_rank=3))
    with pytest.raises(ConfigurationError, match="two adapters"):
        StormModelConfig(**name, thought_adapter_rank=2, use_peft=True)


def test_number_of_frames_is_saved_with_the_processor(qwen_checkpoint, tmp_path):
    _, processor = load_storm(StormModelConfig(model_name_or_path=str(qwen_checkpoint), num_frames=2))
    processor.save_pretrained(tmp_path)
    sampler = type(processor).from_pretrained(tmp_path).video_processor
    assert (sampler.do_sample_frames, sampler.num_frames, sampler.fps) == (True, 2, None)


# --- adapters -----------------------------------------------------------------------------------------------------------

with_adapters = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(params=["plain", "storm"])
def adapter(request, qwen_checkpoint, storm_checkpoint, tmp_path):
    """An adapter of Stage I with three latents and a scale of its own, on a plain checkpoint and on a STORM."""
    base = {"plain": qwen_checkpoint, "storm": storm_checkpoint}[request.param]
    chosen = {"latent_scale": 0.25, "latent_attention": "step"}
    args = StormModelConfig(model_name_or_path=str(base), use_peft=True, lora_r=4, **chosen)
    model, processor = load_storm(args, 3)
    adapted = get_peft_model(model, peft_config(args, model))
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.add_(0.05)
    folder = tmp_path / "adapter"
    adapted.save_pretrained(folder, save_embedding_layers=False)
    save_storm_config(model.config, folder)
    processor.save_pretrained(folder)
    return folder, adapted.eval()


def logits_of(model):
    start, latent, end = model.config.latent_block_ids
    tokens = torch.tensor([[5, 6, 7, start, *[latent] * 3, end]])
    with torch.no_grad():
        return model.eval()(input_ids=tokens).logits


@with_adapters
def test_stage_two_goes_on_with_the_adapter_of_stage_one(adapter):
    folder, adapted = adapter
    args = StormModelConfig(model_name_or_path=str(folder), use_peft=True)
    model, processor = load_storm(args)
    assert isinstance(model, PeftModel)
    assert peft_config(args, model) is None
    assert (model.config.num_latents, model.config.latent_scale, num_placeholders(processor)) == (3, 0.25, 3)
    assert model.config.latent_attention == "step"
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained == {name for name, weight in adapted.named_parameters() if weight.requires_grad}
    assert torch.equal(logits_of(model), logits_of(adapted))


@with_adapters
def test_without_an_adapter_of_its_own_stage_two_trains_the_merged_model(adapter):
    folder, adapted = adapter
    model, _ = load_storm(StormModelConfig(model_name_or_path=str(folder)))
    assert type(model) is StormForConditionalGeneration
    assert all(weight.requires_grad for weight in model.parameters())
    assert not any("lora" in name for name, _ in model.named_parameters())
    # In double precision only the rounding of the merged weights is left.
    torch.testing.assert_close(logits_of(model.double()), logits_of(adapted.double()), rtol=0, atol=2e-6)


@with_adapters
def test_number_of_latents_and_scale_of_an_adapter_can_be_changed(adapter):
    args = StormModelConfig(model_name_or_path=str(adapter[0]), use_peft=True, latent_scale=2.0)
    model, processor = load_storm(args, 5)
    assert (model.config.num_latents, model.config.latent_scale, num_placeholders(processor)) == (5, 2.0, 5)


@with_adapters
def test_adapter_keeps_its_projector(adapter):
    args = StormModelConfig(model_name_or_path=str(adapter[0]), latent_projector="identity")
    with pytest.raises(CheckpointError, match="Expected `latent_projector: linear`"):
        load_storm(args)


@with_adapters
def test_base_that_is_not_there_is_named(adapter):
    folder, _ = adapter
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "runs/gone"}))
    with pytest.raises(CheckpointError, match="belongs to runs/gone, which is not there"):
        load_storm(StormModelConfig(model_name_or_path=str(folder)))
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": None}))
    with pytest.raises(CheckpointError, match="Expected `base_model_name_or_path`"):
        load_storm(StormModelConfig(model_name_or_path=str(folder)))


@with_adapters
def test_adapter_on_a_plain_model_needs_to_know_its_storm(adapter, qwen_checkpoint):
    folder, _ = adapter
    (folder / "storm_config.json").unlink()
    args = StormModelConfig(model_name_or_path=str(folder), use_peft=True)
    if find_adapter(str(folder)).base == str(qwen_checkpoint):
        with pytest.raises(CheckpointError, match=r"holds no storm_config\.json"):
            load_storm(args)
    else:
        assert load_storm(args)[0].config.num_latents == 3


def test_whole_models_are_no_adapters(qwen_checkpoint, storm_checkpoint):
    assert find_adapter(str(qwen_checkpoint)) is None
    assert find_adapter(str(storm_checkpoint)) is None
    assert find_adapter("no-such-owner/no-such-model") is None


def test_paths_in_a_folder_are_made_absolute(tmp_path):
    splits = load_rows(str(write_thoughts(tmp_path, num_rows=2)))
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 2, "test": 1}
    for row in splits["train"]:
        for name in ("video", "thought_video"):
            assert Path(row[name]).is_absolute()
            assert Path(row[name]).is_file()


def test_folder_of_a_demo_stands_for_its_data(tmp_path):
    data = write_thoughts(tmp_path / "data", num_rows=2)
    (data / "manifest.json").touch()
    rows = load_rows(str(tmp_path))["train"]
    assert (len(rows), origin_of(rows)) == (2, str(data))


def test_missing_videos_stay_missing(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"video": "a.mp4", "thought_video": "b.mp4"}\n{"video": null}\n')
    rows = load_rows(str(tmp_path))["train"]
    assert rows["video"] == [str(tmp_path / "a.mp4"), None]


def test_paths_in_a_table_of_commas_are_made_absolute(tmp_path):
    (tmp_path / "train.csv").write_text("video,question,answer\na.mp4,Which?,1\n")
    assert load_rows(str(tmp_path))["train"]["video"] == [str(tmp_path / "a.mp4")]


def test_folder_of_videos_is_read_without_a_decoder_of_datasets(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"not opened")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.mp4", "question": "Which?", "answer": "x"}\n')
    row = load_rows(str(tmp_path))["train"][0]
    assert (row["video"]["path"], row["answer"]) == (str(tmp_path / "a.mp4"), "x")


UNREADABLE = {
    "damaged": ("train.jsonl", '{"video": ', "JSON parse error"),
    "ragged": ("train.csv", "video,answer\na.mp4,x\nb.mp4,x,y,z\n", "Expected 2 fields in line 3, saw 4"),
    "empty": ("train.jsonl", "", "since `datasets` says"),
    "other columns": ("test.jsonl", '{"other": 1}\n', "need the same columns"),
    "saved": ("state.json", "{}", "load_from_disk"),
}


@pytest.mark.parametrize("fault", UNREADABLE)
def test_data_set_that_cannot_be_loaded_is_named_with_the_reason(fault, tmp_path):
    name, content, reason = UNREADABLE[fault]
    (tmp_path / name).write_text(content)
    if fault == "other columns":
        (tmp_path / "train.jsonl").write_text('{"video": "a.mp4"}\n')
    with pytest.raises(DatasetError, match=f"^The data set {tmp_path} cannot be loaded, .*{reason}"):
        load_rows(str(tmp_path))


@pytest.mark.parametrize(
    "row", ['{"video": "a.mp4", "question": "Straße?"}', '{"messages": [{"content": "Straße?"}]}']
)
def test_texts_that_are_not_utf_8_are_refused_before_a_row_is_read(row, tmp_path):
    (tmp_path / "train.jsonl").write_text(row + "\n", encoding="latin1")
    with pytest.raises(DatasetError, match=f"in UTF-8 in the column `(question|messages)` of {tmp_path}"):
        load_rows(str(tmp_path))
    (tmp_path / "train.jsonl").write_text(row + "\n", encoding="utf-8")
    assert "Straße?" in str(load_rows(str(tmp_path))["train"][0])


def test_model_that_is_nowhere_is_named():
    with pytest.raises(CheckpointError, match=r"^There is no model folder no-base, and no model of that name"):
        load_storm(StormModelConfig(model_name_or_path="no-base"))


def test_data_set_that_is_nowhere_is_named_with_the_way_to_build_one(tmp_path):
    nowhere, empty = tmp_path / "nope", tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(
        DatasetError, match=f"There is no folder {nowhere}, and no data set of that name .*`storm build RECIPE`"
    ):
        load_rows(str(nowhere))
    with pytest.raises(DatasetError, match=f"Expected a built data set in {empty}, got a folder without one"):
        load_rows(str(empty))
