"""Tokens that a processor writes for a clip are cut with the clip, on every backbone."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.processors import PROCESSORS, stock_processor
from tests.tiny import tiny_config
from transformers import LlavaOnevisionProcessor

from storm_hf.errors import ConfigurationError, DatasetError, PromptError
from storm_hf.inputs.collator import AnswerCollator, append_answers
from storm_hf.inputs.prompts import PromptEncoder
from storm_hf.model import StormConfig, add_latent_tokens
from storm_hf.model.bottleneck_storm import ClipFreeRows
from storm_hf.model.processing_storm import LATENT_TOKENS
from storm_hf.video import VideoClip


NUM_LATENTS = 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of GLM's own processor


PLACEHOLDERS = {  # what stands for a frame of a video
    "qwen2_5_vl": "<|video_pad|>",
    "qwen3_vl": "<|video_pad|>",
    "smolvlm": "<image>",
    "internvl": "<IMG_CONTEXT>",
    "llava_onevision": "<video>",
    "glm4v": "<|image|>",
}
WRITES_PLACEHOLDERS_ALONE = ("qwen2_5_vl", "llava_onevision")


def make_encoder(kind):
    processor = add_latent_tokens(stock_processor(kind), NUM_LATENTS)
    start_id, latent_id, end_id = processor.tokenizer.convert_tokens_to_ids(list(LATENT_TOKENS))
    config = StormConfig(
        vlm_config=tiny_config("qwen2_5_vl"),
        num_latents=NUM_LATENTS,
        latent_start_token_id=start_id,
        latent_token_id=latent_id,
        latent_end_token_id=end_id,
    )
    return PromptEncoder(processor, config, NUM_LATENTS)


@pytest.fixture(scope="module", params=PROCESSORS)
def encoder(request):
    return make_encoder(request.param)


def clip(num_frames, fps=4.0):
    frames = np.zeros((num_frames, 64, 64, 3), np.uint8)
    return VideoClip(frames, np.arange(num_frames) / fps, num_frames, num_frames, 0, 0, "pyav")


def ask(*clips, words=("Where?",)):
    """One user turn: a video before each of the words."""
    content = []
    for one, text in zip(clips, words, strict=True):
        content += [{"type": "video", "video": one}, {"type": "text", "text": text}]
    return {"prompt": [{"role": "user", "content": content}]}


def clip_free(encoder, *rows):
    batch = encoder(rows)
    return ClipFreeRows(batch["input_ids"], batch["attention_mask"], encoder.config, batch["clip_token_mask"])


@pytest.mark.parametrize("kind", PROCESSORS)
def test_ids_alone_give_the_same_clip_free_prompt_or_an_error(kind):
    """Without `clip_token_mask`: where a processor writes times and numbers into the prompt, no rule on ids finds all of them."""
    encoder = make_encoder(kind)
    placeholder = encoder.processor.tokenizer.convert_tokens_to_ids(PLACEHOLDERS[kind])
    config = SimpleNamespace(vision_token_ids=[placeholder], get_text_config=lambda: SimpleNamespace(pad_token_id=0))
    batches = [encoder([ask(each)]) for each in (clip(4), clip(12), clip(4, fps=1.0))]

    def of_ids(batch):
        return ClipFreeRows(batch["input_ids"], batch["attention_mask"], config).input_ids

    if kind in WRITES_PLACEHOLDERS_ALONE:
        first, *others = map(of_ids, batches)
        assert all(torch.equal(first, other) for other in others)
        return
    for batch in batches:
        with pytest.raises(ConfigurationError, match="Pass `clip_token_mask`"):
            of_ids(batch)


def words_of(encoder, rows):
    return [
        encoder.processor.tokenizer.decode(ids[keep.bool()])
        for ids, keep in zip(rows.input_ids, rows.attention_mask, strict=True)
    ]


@pytest.mark.parametrize("other", [clip(12), clip(4, fps=1.0), clip(12, fps=30.0)], ids=["longer", "slower", "denser"])
def test_two_clips_give_the_same_clip_free_prompt(encoder, other):
    one, two = (clip_free(encoder, ask(each)) for each in (clip(4), other))
    assert torch.equal(one.input_ids, two.input_ids)


def test_clip_free_prompt_says_nothing_of_the_clip_and_all_of_the_question(encoder):
    (said,) = words_of(encoder, clip_free(encoder, ask(clip(12))))
    assert "Where?" in said
    assert "assistant" in said
    assert said.count("<|latent|>") == NUM_LATENTS
    assert not any(character.isdigit() for character in said)
    assert not {"Frame", "seconds", "frames", "video."} & set(said.replace(":", " ").split())


def test_words_between_and_after_two_clips_stay(encoder):
    row = ask(clip(4), clip(4), words=("First this.", "Then that one?"))
    (said,) = words_of(encoder, clip_free(encoder, row))
    assert "First this." in said
    assert "Then that one?" in said


def test_rows_of_a_batch_are_those_of_rows_alone(encoder):
    rows = [ask(clip(4)), ask(clip(4), words=("Where is the red ball now?",))]
    together = words_of(encoder, clip_free(encoder, *rows))
    assert together == [words_of(encoder, clip_free(encoder, row))[0] for row in rows]


def test_prompts_of_unlike_clips_in_a_batch_are_those_of_rows_alone(encoder):
    rows = [ask(clip(4)), ask(clip(12), words=("Where is the red ball now?",))]
    if isinstance(encoder.processor, LlavaOnevisionProcessor):  # its pixels have the frames as an axis, and no mask
        with pytest.raises(DatasetError, match="Set `num_frames`"):
            encoder(rows)
        return
    batch = encoder(rows)
    for position, row in enumerate(rows):
        (alone,), is_token = encoder([row])["input_ids"], batch["attention_mask"][position].bool()
        assert torch.equal(batch["input_ids"][position][is_token], alone)


def test_shorter_clip_of_a_batch_is_padded_with_frames_that_its_mask_leaves_out():
    processor = add_latent_tokens(stock_processor("smolvlm"), NUM_LATENTS)
    batch = PromptEncoder(processor, SimpleNamespace(model_type="storm"), NUM_LATENTS)([ask(clip(4)), ask(clip(12))])
    is_shown = batch["pixel_attention_mask"].flatten(2).any(dim=2)  # (clips, frames)
    assert is_shown.sum(dim=1).tolist() == [4, 12]
    assert not batch["pixel_values"][~is_shown].any()


def test_control_tokens_in_a_question_are_words_and_stay(encoder):
    (said,) = words_of(encoder, clip_free(encoder, ask(clip(4), words=("Is <|im_end|><|vision_start|> red?",))))
    assert "Is <|im_end|><|vision_start|> red?" in said


def test_mask_grows_with_the_answer_and_with_the_block(encoder):
    batch = encoder([ask(clip(4))])
    longer = append_answers(batch, [torch.tensor([5, 6])], 0)
    assert longer["clip_token_mask"].shape == longer["input_ids"].shape
    assert not longer["clip_token_mask"][0, -2:].any()


@pytest.mark.parametrize("kind", ["qwen3_vl", "glm4v"])
def test_row_that_a_processor_refuses_is_named(kind):
    """These processors read two frames at a time, and refuse a clip of one."""
    encoder = make_encoder(kind)
    rows = [{**ask(clip(frames)), "completion": "left"} for frames in (4, 1, 4)]
    with pytest.raises(PromptError, match=r"^Row 1 of the batch: the processor cannot take it: t:1 must be larger"):
        AnswerCollator(encoder)(rows)
