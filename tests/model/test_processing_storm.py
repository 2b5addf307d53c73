"""The backbone's own processor, taught the latent block."""

import numpy as np
import pytest
from tests.tiny import QWEN_CHAT_TEMPLATE, tiny_processor, tiny_tokenizer
from transformers import AutoProcessor, TextIteratorStreamer

from storm_hf.errors import BackboneError
from storm_hf.model import StormForConditionalGeneration, add_latent_tokens, storm_processor


QUESTION = [{"role": "user", "content": "left or right?"}]
CLIP = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 3), dtype=np.uint8)
VIDEO_QUESTION = [
    {"role": "user", "content": [{"type": "video", "video": CLIP}, {"type": "text", "text": "left or right?"}]}
]
METADATA = {"total_num_frames": 4, "fps": 2.0, "frames_indices": [0, 1, 2, 3]}


@pytest.fixture(scope="module")
def processor():
    return add_latent_tokens(tiny_processor(), num_latents=3)


def block(num_latents):
    return "<|latent_start|>" + "<|latent|>" * num_latents + "<|latent_end|>"


def render(processor, messages, **options):
    return processor.apply_chat_template(messages, **{"add_generation_prompt": True, **options})


def tokenize_video(processor, messages, **options):
    return processor.apply_chat_template(
        messages,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"video_metadata": [METADATA]},
        **options,
    )


def test_block_follows_the_assistant_header(processor):
    stock = tiny_processor().apply_chat_template(QUESTION, add_generation_prompt=True)
    assert stock.endswith("<|im_start|>assistant\n")
    assert render(processor, QUESTION) == stock + block(3)


@pytest.mark.parametrize(("asked", "written"), [(None, 3), (1, 1), (3, 3), (64, 64)])
def test_length_is_set_for_one_call(processor, asked, written):
    assert render(processor, QUESTION, num_latents=asked).endswith("assistant\n" + block(written))


def test_zero_latents_write_the_stock_prompt(processor):
    stock = tiny_processor().apply_chat_template(QUESTION, add_generation_prompt=True)
    assert render(processor, QUESTION, num_latents=0) == stock


def test_earlier_turns_render_without_latents(processor):
    talk = [*QUESTION, {"role": "assistant", "content": "left"}, *QUESTION]
    text = render(processor, talk)
    assert text.count("<|latent_start|>") == 1
    assert text.endswith(block(3))
    stock = tiny_processor().apply_chat_template(talk)
    assert render(processor, talk, add_generation_prompt=False) == stock


def test_latent_tokens_are_three_single_special_tokens(processor):
    ids = processor.tokenizer(block(2))["input_ids"]
    assert len(ids) == 4
    assert len(set(ids)) == 3
    assert processor.tokenizer.decode(ids, skip_special_tokens=True) == ""


def test_adding_twice_changes_only_the_default_length():
    once = add_latent_tokens(tiny_processor(), num_latents=3)
    size, template = len(once.tokenizer), once.chat_template
    assert add_latent_tokens(once, num_latents=3).chat_template == template
    assert len(once.tokenizer) == size == len(tiny_tokenizer()) + 3
    assert render(add_latent_tokens(once, num_latents=5), QUESTION).endswith("assistant\n" + block(5))


def test_processor_is_still_the_backbones_class_after_a_round_trip(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is type(processor)
    assert loaded.tokenizer.padding_side == "left"
    assert loaded.chat_template == processor.chat_template
    assert render(loaded, QUESTION) == render(processor, QUESTION)
    assert loaded.tokenizer(block(1))["input_ids"] == processor.tokenizer(block(1))["input_ids"]


def test_storm_processor_reads_a_plain_checkpoint(qwen_checkpoint):
    loaded = storm_processor(qwen_checkpoint, num_latents=2)
    assert render(loaded, QUESTION).endswith("assistant\n" + block(2))


@pytest.mark.parametrize("words", ["<|latent|>", "<|latent_start|>", "<|latent_end|>", "<|video_pad|>", "<|im_end|>"])
def test_control_token_in_a_question_stays_text(processor, words):
    token_id = processor.tokenizer.convert_tokens_to_ids(words)

    def count(text):
        messages = [{"role": "user", "content": [VIDEO_QUESTION[0]["content"][0], {"type": "text", "text": text}]}]
        inputs = tokenize_video(processor, messages, sanitize_control_tokens=True)
        return int((inputs["input_ids"] == token_id).sum()), processor.tokenizer.decode(inputs["input_ids"][0])

    (expected, _), (found, text) = count("left or right?"), count(f"left {words} or right?")
    assert found == expected
    assert f"left {words} or right?" in text  # the words themselves are not lost


def test_control_token_in_a_question_is_dangerous_without_sanitizing(processor):
    """The test above can fail."""
    messages = [{"role": "user", "content": "left <|latent|> or right?"}]
    ids = processor.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"][0]
    assert processor.tokenizer.convert_tokens_to_ids("<|latent|>") in ids


def test_question_about_a_clip_is_answered_in_words(processor, qwen_checkpoint):
    model = StormForConditionalGeneration.from_backbone(qwen_checkpoint, num_latents=3, processor=processor).eval()
    inputs = tokenize_video(processor, VIDEO_QUESTION)
    streamer = TextIteratorStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    vision = [model.config.image_token_id, model.config.video_token_id]
    output = model.generate(
        **inputs,
        max_new_tokens=6,
        do_sample=False,
        suppress_tokens=vision,
        streamer=streamer,
        return_dict_in_generate=True,
        output_latents=True,
    )
    answer = processor.decode(output.sequences[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert "".join(streamer) == answer
    assert "latent" not in answer
    assert output.latents.shape == (1, 3, 32)


def test_processor_without_videos_is_refused():
    with pytest.raises(BackboneError, match="has no video processor. Use a video-language"):
        add_latent_tokens(tiny_tokenizer())


def test_processor_without_a_chat_template_is_refused():
    processor = tiny_processor()
    processor.chat_template = None
    with pytest.raises(BackboneError, match="Set `processor.chat_template`"):
        add_latent_tokens(processor)


def test_stock_template_is_kept_to_the_letter(processor):
    assert processor.chat_template.startswith(QWEN_CHAT_TEMPLATE)
