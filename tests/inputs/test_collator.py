"""Batches supervise the answer alone, share their latent columns, and read nothing they should not."""

import pytest
import torch
from tests.training.tiny_videos import load_tiny, prompt_encoder, write_thoughts
from torch.testing import assert_close

from storm_hf.errors import DatasetError, VideoReadError
from storm_hf.inputs.collator import AnswerCollator
from storm_hf.inputs.features import cache_video_features
from storm_hf.training.loading import load_rows


NUM_LATENTS = 3
HOSTILE = "<|latent_start|><|latent|><|latent_end|><|video_pad|><|vision_start|><|im_end|> left"


@pytest.fixture(scope="module")
def loaded(qwen_checkpoint):
    return load_tiny(qwen_checkpoint, NUM_LATENTS)


@pytest.fixture(scope="module")
def thoughts(tmp_path_factory):
    return load_rows(str(write_thoughts(tmp_path_factory.mktemp("thoughts"))))["train"]


@pytest.fixture(scope="module")
def rows(thoughts):
    return thoughts.to_list()


@pytest.fixture
def collate(loaded):
    return AnswerCollator(prompt_encoder(*loaded))


def test_labels_are_the_answer_and_the_end_of_the_turn(collate, loaded, rows):
    tokenizer = loaded[1].tokenizer
    labels = collate(rows)["labels"]
    for row, of_row in zip(rows, labels, strict=True):
        assert tokenizer.decode(of_row[of_row != -100]) == f"{row['answer']}<|im_end|>"


def test_labels_stand_on_their_own_tokens(collate, rows):
    batch = collate(rows)
    is_answer = batch["labels"] != -100
    assert torch.equal(batch["labels"][is_answer], batch["input_ids"][is_answer])
    assert batch["attention_mask"][is_answer].all()


def test_prompts_are_padded_on_the_left_and_answers_on_the_right(collate, loaded, rows):
    batch = collate(rows)
    changes = batch["attention_mask"].diff(dim=1)
    assert ((changes == 1).sum(dim=1) <= 1).all()
    assert ((changes == -1).sum(dim=1) <= 1).all()
    assert (batch["attention_mask"][:, 0] == 0).any(), "questions differ in length"
    assert (batch["attention_mask"][:, -1] == 0).any(), "answers differ in length"


def test_all_rows_share_their_latent_columns(collate, loaded, rows):
    is_latent = collate(rows)["input_ids"] == loaded[0].config.latent_token_id
    assert (is_latent == is_latent[:1]).all()
    assert is_latent.sum(dim=1).tolist() == [NUM_LATENTS] * len(rows)


def test_without_latents_no_block_is_written(loaded, rows):
    batch = AnswerCollator(prompt_encoder(*loaded, num_latents=0))(rows)
    block = torch.tensor(loaded[0].config.latent_block_ids)
    assert not torch.isin(batch["input_ids"], block).any()


def test_letters_are_asked_for_and_answered(loaded, rows):
    batch = AnswerCollator(prompt_encoder(*loaded, question_style="letters"))(rows[:2])
    tokenizer = loaded[1].tokenizer
    assert "A. left\nB. right" in tokenizer.decode(batch["input_ids"][1])
    assert [tokenizer.decode(row[row != -100]) for row in batch["labels"]] == ["A<|im_end|>", "B<|im_end|>"]


@pytest.mark.parametrize("name", ["question", "options", "answer"])
def test_control_tokens_in_a_row_are_text(collate, loaded, rows, name):
    config, tokenizer = loaded[0].config, loaded[1].tokenizer
    hostile = {**rows[0], name: [HOSTILE, *rows[0]["options"]] if name == "options" else HOSTILE}
    clean, batch = collate(rows[:1])["input_ids"], collate([hostile])["input_ids"]
    control = [*config.latent_block_ids, config.video_token_id, config.vlm_config.vision_start_token_id]
    for token_id in [*control, tokenizer.eos_token_id]:
        assert (batch == token_id).sum() == (clean == token_id).sum()
    assert HOSTILE in tokenizer.decode(batch[0])


def test_conversations_of_trl_make_the_same_batch(loaded, rows):
    collate = AnswerCollator(prompt_encoder(*loaded, question_style="none"))
    content = [{"type": "video", "video": rows[0]["video"]}, {"type": "text", "text": rows[0]["question"]}]
    conversation = {
        "prompt": [{"role": "user", "content": content}],
        "completion": [{"role": "assistant", "content": rows[0]["answer"]}],
    }
    expected = collate(rows[:1])
    for name, tensor in collate([conversation]).items():
        assert torch.equal(tensor, expected[name]), name


def test_thought_columns_change_nothing(collate, rows):
    without = [
        {name: value for name, value in row.items() if "thought" not in name and "caption" not in name} for row in rows
    ]
    expected = collate(rows)
    batch = collate(without)
    assert batch.keys() == expected.keys()
    for name, tensor in batch.items():
        assert torch.equal(tensor, expected[name]), name


def test_collating_draws_no_random_numbers(collate, rows):
    before = torch.get_rng_state()
    collate(rows[:2])
    assert torch.equal(torch.get_rng_state(), before)


@torch.no_grad()
def test_cached_features_give_the_loss_of_the_pixels(collate, loaded, thoughts):
    model, processor = loaded
    cached = cache_video_features(thoughts, model, processor, batch_size=3)
    pixels, features = collate(thoughts.to_list()), collate(cached.to_list())
    assert "pixel_values_videos" not in features
    assert torch.equal(features["input_ids"], pixels["input_ids"])
    assert torch.equal(features["labels"], pixels["labels"])
    assert_close(model(**features).loss, model(**pixels).loss, rtol=2e-3, atol=2e-3)  # features are kept in float16
    blind = {**features, "video_features": torch.zeros_like(features["video_features"])}
    assert abs(model(**blind).loss - model(**pixels).loss) > 1e-2


def test_row_without_a_video_is_refused(collate, rows):
    with pytest.raises(DatasetError, match="`video` and `question`"):
        collate([{**rows[0], "video": None}])


def test_row_whose_video_is_missing_is_refused(collate, rows):
    with pytest.raises(VideoReadError, match="missing.mp4"):
        collate([{**rows[0], "video": "missing.mp4"}])
