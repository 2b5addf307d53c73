"""Lengths of rows before they are tokenized, and the order that groups them."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard, SkipBatchSampler
from datasets import Dataset
from tests.processors import stock_processor
from tests.tiny import PAD, tiny_inputs
from tests.training.tiny_training import NUM_LATENTS, TinyCollator, logged, stack_prompts, tiny_trainer
from tests.training.tiny_videos import load_tiny, prompt_encoder, write_thoughts
from tests.video.clips import encode, numbered_frames, turned
from torch.utils.data import BatchSampler, DataLoader

from storm_hf.align.collator import AlignCollator
from storm_hf.errors import ConfigurationError, VideoReadError
from storm_hf.inputs import media as media_file
from storm_hf.inputs.collator import AnswerCollator, append_answers
from storm_hf.inputs.features import cache_video_features
from storm_hf.inputs.media import load_clip
from storm_hf.inputs.prompts import PromptEncoder
from storm_hf.model.processing_storm import add_latent_tokens
from storm_hf.target_trajectory import TargetTrajectory
from storm_hf.training.loading import load_rows
from storm_hf.training.samplers import (
    LengthGroupedRows,
    clip_size,
    prompt_encoder_of,
    row_length,
    sequence_lengths,
    set_sampler_epoch,
    video_tokens,
)
from storm_hf.video import read_video


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return load_rows(str(write_thoughts(tmp_path_factory.mktemp("thoughts"), num_rows=4)))["train"]


@pytest.fixture(scope="module")
def tiny(qwen_checkpoint):
    return load_tiny(qwen_checkpoint, NUM_LATENTS)


def real_lengths(rows, encoder):
    return [int(AnswerCollator(encoder)([row])["attention_mask"].sum()) for row in rows]


@pytest.mark.parametrize("num_latents", [0, NUM_LATENTS])
def test_length_of_a_cached_row_is_exact(num_latents, tiny, rows):
    cached = cache_video_features(rows, *tiny)
    encoder = prompt_encoder(*tiny, num_latents=num_latents)
    assert sequence_lengths(cached, encoder) == real_lengths(cached, encoder)


@pytest.mark.parametrize("num_latents", [0, NUM_LATENTS])
def test_length_of_a_qwen_row_is_known_from_the_header_of_its_video(num_latents, tiny, rows, monkeypatch):
    encoder = prompt_encoder(*tiny, num_latents=num_latents)
    expected = real_lengths(rows, encoder)
    monkeypatch.setattr(media_file, "read_video", lambda *args, **kwargs: pytest.fail("a frame was decoded"))
    assert sequence_lengths(rows, encoder) == expected
    assert len(set(expected)) > 1


def test_conversation_is_as_long_as_the_row_it_says(tiny, rows):
    encoder = prompt_encoder(*tiny)
    for row, length in zip(rows, sequence_lengths(rows, encoder), strict=True):
        completion = [{"role": "assistant", "content": row["answer"]}]
        assert row_length({"prompt": encoder.messages(row), "completion": completion}, encoder) == length


@pytest.mark.parametrize(
    ("sampler", "num_frames"),
    [
        ({"num_frames": 3, "fps": None}, 3),
        ({"num_frames": None, "fps": 2, "min_frames": 1}, 2),
        ({"num_frames": None, "fps": 2, "min_frames": 3}, 3),
        ({"num_frames": None, "fps": 4, "max_frames": 3}, 3),
        ({"num_frames": None, "fps": None}, 4),
    ],
)
def test_frames_are_those_that_the_video_processor_asks_for(sampler, num_frames, tiny, rows, monkeypatch):
    processor = tiny[1].video_processor
    monkeypatch.setattr(processor, "do_sample_frames", True)
    for name, value in sampler.items():
        monkeypatch.setattr(processor, name, value)
    video = rows[0]["video"]
    assert clip_size(video, tiny[1]) == (num_frames, 56, 56)
    assert len(load_clip(video, tiny[1]).frames) == num_frames
    assert clip_size({"path": video}, tiny[1]) == (num_frames, 56, 56)
    assert clip_size(read_video(video), tiny[1]) == (4, 56, 56)


def test_video_that_cannot_be_opened_is_named(tiny, rows, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_text("no video")
    with pytest.raises(VideoReadError, match=r"broken\.mp4 is not a video"):
        sequence_lengths(Dataset.from_list([{**rows[0], "video": str(broken)}]), prompt_encoder(*tiny))


def test_order_is_drawn_from_seed_and_epoch_alone():
    lengths = torch.arange(64).tolist()
    rows = LengthGroupedRows(lengths, batch_size=4, seed=1)
    first = list(rows)
    torch.rand(1)
    assert list(LengthGroupedRows(lengths, 4, seed=1)) == list(rows) == first
    assert sorted(first) == lengths
    rows.set_epoch(1)
    assert list(rows) != first
    assert list(LengthGroupedRows(lengths, 4, seed=2)) != first


@pytest.mark.parametrize("num_skipped", [0, 1])
def test_processes_share_one_order_and_know_the_epoch(num_skipped):
    lengths = [row % 7 for row in range(32)]

    def batches(rank):
        whole = BatchSampler(LengthGroupedRows(lengths, 8, seed=0), batch_size=4, drop_last=False)
        shard = SkipBatchSampler(BatchSamplerShard(whole, num_processes=2, process_index=rank), num_skipped)
        set_sampler_epoch(DataLoader(lengths, batch_sampler=shard), 3)
        return list(shard)

    alone = LengthGroupedRows(lengths, 8, seed=0)
    alone.set_epoch(3)
    order = torch.tensor(list(alone)).view(4, 2, 4)[num_skipped:]  # (steps, processes, rows)
    for rank in (0, 1):
        assert batches(rank) == order[:, rank].tolist()


@dataclass(frozen=True)
class UnevenCollator(TinyCollator):
    """Prompts of very different lengths."""

    def __call__(self, rows):
        numbers = [row["number"] for row in rows]
        prompts = [tiny_inputs(self.kind, (uneven(number),), self.num_latents, seed=number) for number in numbers]
        return append_answers(stack_prompts(prompts), [self.answer(number) for number in numbers], PAD)


def uneven(number):
    return 2 + 7 * (number % 5)


def uneven_trainer(folder, num_rows=20, **config):
    trainer = tiny_trainer("answer", "qwen2_5_vl", folder, num_rows=num_rows, **config)
    trainer.train_dataset = trainer.train_dataset.add_column("length", [uneven(row) for row in range(num_rows)])
    trainer.data_collator = UnevenCollator("qwen2_5_vl")
    return trainer


def test_rows_of_similar_length_leave_less_padding(tmp_path):
    shares = {}
    for strategy in ("random", "group_by_length"):
        settings = {"gradient_accumulation_steps": 4, "max_steps": 2, "logging_steps": 2}
        trainer = uneven_trainer(tmp_path, num_rows=80, train_sampling_strategy=strategy, **settings)
        trainer.train()
        shares[strategy] = logged(trainer, "padding_share")[0]
    assert shares["group_by_length"] < 0.5 * shares["random"]


def test_batches_of_equal_cost_are_made_of_the_same_lengths(tmp_path):
    trainer = uneven_trainer(tmp_path, train_sampling_strategy="batch_rebalance")
    assert trainer._get_train_sampler().lengths == [uneven(row) for row in range(20)]


def test_grouped_run_that_is_resumed_is_the_run_that_was_not(tmp_path):
    """It stops in the middle of the second epoch."""
    settings = {"num_rows": 10, "max_steps": 8, "train_sampling_strategy": "group_by_length"}
    saving = {"save_strategy": "steps", "save_steps": 6}
    whole = uneven_trainer(tmp_path / "whole", **settings)
    whole.train()
    uneven_trainer(tmp_path / "cut", **{**settings, "max_steps": 6}, **saving).train()
    resumed = uneven_trainer(tmp_path / "cut", **settings, **saving)
    torch.rand(3)
    resumed.train(resume_from_checkpoint=True)
    assert logged(resumed, "loss") == logged(whole, "loss")


def test_rows_to_test_on_keep_their_order(tmp_path):
    trainer = uneven_trainer(tmp_path, train_sampling_strategy="group_by_length")
    trainer.eval_dataset = trainer.train_dataset
    assert list(trainer._get_eval_sampler(trainer.eval_dataset)) == list(range(20))
    assert "eval_loss" in trainer.evaluate()


def test_encoder_is_found_in_the_collators_of_both_stages(tiny):
    encoder = prompt_encoder(*tiny)
    answers = AnswerCollator(encoder)
    assert prompt_encoder_of(answers) is encoder
    assert (
        prompt_encoder_of(AlignCollator(answers, TargetTrajectory(encoder.num_latents, normalize="none"))) is encoder
    )


def test_collator_that_is_not_ours_needs_a_column_of_lengths(tmp_path):
    trainer = tiny_trainer("answer", "qwen2_5_vl", tmp_path, train_sampling_strategy="group_by_length")
    with pytest.raises(ConfigurationError, match=r"TinyCollator does not say .* Add a column `length`"):
        trainer.train()


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy")  # GLM-4V's, in transformers
@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl", "glm4v"])
@pytest.mark.parametrize("quarter_turns", [0, 1, 2, 3])
@pytest.mark.parametrize("aspect", [None, (4, 3), (64, 45), (8, 15)], ids=str)
def test_video_has_the_tokens_of_the_clip_as_a_player_shows_it(kind, quarter_turns, aspect, tmp_path):
    clip = encode(tmp_path / "stored.mp4", numbered_frames(8, height=96, width=128), aspect=aspect)
    if quarter_turns:
        clip = turned(tmp_path / "turned.mp4", clip, quarter_turns_clockwise=quarter_turns)
    processor = add_latent_tokens(stock_processor(kind), NUM_LATENTS)
    encoder = PromptEncoder(processor, SimpleNamespace(model_type="plain"), NUM_LATENTS, "words")
    row = {"video": str(clip), "question": "Where?", "answer": "left"}
    placeholders = {processor.image_token_id, processor.video_token_id}  # GLM-4V writes those of pictures
    ids = encoder([row])["input_ids"][0].tolist()
    assert video_tokens(str(clip), processor) == sum(ids.count(each) for each in placeholders) > 1
    if kind == "qwen2_5_vl":  # the others write times beside their frames, which are not estimated
        assert sequence_lengths(Dataset.from_list([row]), encoder) == real_lengths([row], encoder)


@pytest.mark.parametrize(("aspect", "shown"), [(None, 128), ((4, 3), 170), ((64, 45), 182), ((8, 15), 68)], ids=str)
def test_size_of_a_clip_is_that_in_square_pixels(aspect, shown, tmp_path):
    clip = encode(tmp_path / "clip.mp4", numbered_frames(8, height=96, width=128), aspect=aspect)
    assert clip_size(clip, stock_processor("qwen2_5_vl"))[1:] == (96, shown)
    assert read_video(clip, num_frames=1).frames.shape[1:3] == (96, shown)
