"""A video-language model small enough to learn to see on two processor cores: a random Qwen2.5-VL and its own tokenizer."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from storm_hf.model import StormConfig, add_latent_tokens
from storm_hf.model.processing_storm import LATENT_TOKENS


PATCH_PX = 8
_SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT_TEMPLATE = """{%- for message in messages -%}
    {{- '<|im_start|>' + message['role'] + '\n' -}}
    {%- if message['content'] is string -%}
        {{- message['content'] -}}
    {%- else -%}
        {%- for part in message['content'] -%}
            {%- if part['type'] == 'video' -%}
                {{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
            {%- elif part['type'] == 'image' -%}
                {{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
            {%- else -%}
                {{- part['text'] -}}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {{- '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"""

_ROPE = {"rope_type": "default", "mrope_section": [8, 4, 4]}
_TEXT = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.05,
    "bos_token_id": None,
}
_VISION = {
    "depth": 1,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_heads": 4,
    "patch_size": PATCH_PX,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "tokens_per_second": 1,
    "window_size": 8 * PATCH_PX,
    "out_hidden_size": 128,
    "fullatt_block_indexes": [0],
    "initializer_range": 0.05,
}


def tiny_processor(words: Iterable[str], num_latents: int, frame_pixels: int) -> Qwen2_5_VLProcessor:
    """Make a Qwen2.5-VL processor whose byte-level tokenizer knows each of `words` as one token.

    Any other text is still encoded, byte by byte if need be.

    Args:
        words (`Iterable[str]`):
            The vocabulary of a world.
        num_latents (`int`):
            Number K of latent steps that the chat template writes.
        frame_pixels (`int`):
            Number of pixels that a frame is resized to, its aspect kept: clips are drawn larger, for the video codec.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    corpus = [text for word in sorted(set(words)) for text in (word, f"a {word}")] + ["user", "assistant", "system"]
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        min_frequency=1,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(_SPECIAL_TOKENS),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=list(_SPECIAL_TOKENS),
    )
    return add_latent_tokens(qwen_processor(fast, frame_pixels, CHAT_TEMPLATE), num_latents)


def qwen_processor(tokenizer: PreTrainedTokenizerBase, frame_pixels: int, chat_template: str) -> Qwen2_5_VLProcessor:
    """Make a Qwen2.5-VL processor of small patches around a tokenizer.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            Knows the vision tokens of Qwen2.5-VL.
        frame_pixels (`int`):
            Number of pixels that a frame is resized to, its aspect kept: clips are drawn larger, for the video codec.
        chat_template (`str`):
            Template of its conversations.
    """
    size = {"shortest_edge": 4 * PATCH_PX**2, "longest_edge": frame_pixels}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=PATCH_PX, size=size),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(
            patch_size=PATCH_PX, size=size, do_sample_frames=False, cap_pixels_per_frame=True
        ),
        chat_template=chat_template,
    )


def qwen_token_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Look up the ids of the vision tokens, by their names in [`~transformers.Qwen2_5_VLConfig`]."""
    names = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    return {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}


def tiny_config(
    processor: Qwen2_5_VLProcessor, num_latents: int, latent_scale: float = 1.0, rope_theta: float = 1e4
) -> StormConfig:
    """Configure a STORM around a Qwen2.5-VL of under one million parameters (three layers of width 128).

    Args:
        processor ([`~transformers.Qwen2_5_VLProcessor`]):
            Result of `tiny_processor`: it fixes the vocabulary and the token ids.
        num_latents (`int`):
            Number K of latent steps.
        latent_scale (`float`, *optional*, defaults to `1.0`):
            See [`StormConfig`].
        rope_theta (`float`, *optional*, defaults to `1e4`):
            Base of the rotary frequencies. Qwen2.5-VL gives height and width the slowest ones, which at 1e4 turn a thousandth of a
            radian from one cell to the next: a model this small then cannot tell the cells of a frame apart.
    """
    tokenizer = processor.tokenizer
    text_config = _TEXT | {
        "vocab_size": len(tokenizer),
        "rope_parameters": _ROPE | {"rope_theta": rope_theta},
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    backbone = Qwen2_5_VLConfig(
        text_config=text_config,
        vision_config=dict(_VISION),
        tie_word_embeddings=False,
        **qwen_token_ids(tokenizer),
    )
    start_id, latent_id, end_id = tokenizer.convert_tokens_to_ids(list(LATENT_TOKENS))
    return StormConfig(
        vlm_config=backbone,
        num_latents=num_latents,
        latent_start_token_id=start_id,
        latent_token_id=latent_id,
        latent_end_token_id=end_id,
        latent_scale=latent_scale,
    )
