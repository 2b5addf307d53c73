"""Tiny random backbones, a tiny processor and inputs for them: seconds instead of downloads.

tiny_config(kind)            configuration of one of the six backbones in `KINDS`
tiny_storm(kind)             a STORM around it, with weights large enough that every token matters
tiny_inputs(kind)            a left-padded batch of prompts, each with a video and a latent block
with_clip_mask(inputs)       the same with the mask of what was written for the video
tiny_processor()             a Qwen2.5-VL processor, its tokenizer trained here, still without latent tokens
tiny_qwen_checkpoint(path)   a plain Qwen2.5-VL checkpoint with this processor, ready for `from_backbone`
"""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CONFIG_MAPPING,
    AutoModelForImageTextToText,
    PreTrainedConfig,
    Qwen2_5_VLProcessor,
    Qwen2TokenizerFast,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    set_seed,
)

from storm_hf.model import StormConfig, StormForConditionalGeneration


KINDS = ("qwen2_5_vl", "qwen3_vl", "qwen3_5", "llava_onevision", "smolvlm", "internvl")
GRID_KINDS = KINDS[:3]  # backbones that take `video_grid_thw`, and so cached video features
VOCAB_SIZE = 128
PAD, EOS, BOS = 0, 1, 2
IMAGE, VIDEO, VISION_START, VISION_END = 100, 101, 102, 103
LATENT, LATENT_START, LATENT_END = 110, 111, 112
VISION_TOKENS = (IMAGE, VIDEO, VISION_START, VISION_END)

_TEXT = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "max_position_embeddings": 512,
}
_ROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
_QWEN3_TEXT = {"head_dim": 8, "rope_parameters": _ROPE}
_TEXT_OF = {
    "qwen2_5_vl": {"rope_parameters": _ROPE},
    "qwen3_vl": _QWEN3_TEXT,
    "qwen3_5": {
        "head_dim": 8,
        "rope_parameters": {**_ROPE, "partial_rotary_factor": 1.0},
        "layer_types": ["linear_attention", "full_attention"],
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
    },
    "llava_onevision": {"model_type": "qwen2"},
    "smolvlm": {"model_type": "llama"},
    "internvl": {"model_type": "qwen2"},
}

_QWEN_VISION = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32}
_QWEN3_VISION = {**_QWEN_VISION, "patch_size": 16, "num_position_embeddings": 64}
_VIT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
_VISION_OF = {
    "qwen2_5_vl": {**_QWEN_VISION, "patch_size": 14, "fullatt_block_indexes": [1], "window_size": 56},
    "qwen3_vl": {**_QWEN3_VISION, "deepstack_visual_indexes": [0, 1]},
    "qwen3_5": _QWEN3_VISION,
    "llava_onevision": {**_VIT, "model_type": "siglip_vision_model", "image_size": 28, "patch_size": 14},
    "smolvlm": {**_VIT, "image_size": 32, "patch_size": 8},
    "internvl": {**_VIT, "image_size": [32, 32], "patch_size": [8, 8]},
}

_QWEN_TOKENS = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "vision_start_token_id": VISION_START,
    "vision_end_token_id": VISION_END,
}
_REST_OF = {
    **dict.fromkeys(GRID_KINDS, _QWEN_TOKENS),
    "llava_onevision": {
        "image_token_id": IMAGE,
        "video_token_id": VIDEO,
        "image_grid_pinpoints": [[28, 28]],
        "vision_feature_layer": -1,
    },
    "smolvlm": {"image_token_id": IMAGE, "scale_factor": 2, "pad_token_id": PAD},
    "internvl": {"image_token_id": IMAGE, "downsample_ratio": 0.5, "vision_feature_layer": -1},
}


def tiny_config(kind: str, **text_overrides: Any) -> PreTrainedConfig:
    """Configure a backbone of two layers and width 32; `text_overrides` go to its language model."""
    text_config = {**_TEXT, **_TEXT_OF[kind], **text_overrides}
    return CONFIG_MAPPING[kind](text_config=text_config, vision_config=dict(_VISION_OF[kind]), **_REST_OF[kind])


def tiny_storm(kind: str, num_latents: int = 4, seed: int = 0, **storm_config: Any) -> StormForConditionalGeneration:
    """Build a random STORM in evaluation mode. Its weights are large, so that logits differ clearly between tokens."""
    ids = {"latent_start_token_id": LATENT_START, "latent_token_id": LATENT, "latent_end_token_id": LATENT_END}
    settings = {
        "vlm_config": tiny_config(kind),
        "num_latents": num_latents,
        "latent_scale": 0.5,
        **ids,
        **storm_config,
    }
    set_seed(seed)
    model = StormForConditionalGeneration(StormConfig(**settings)).eval()
    enlarge_weights(model.backbone)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = EOS, PAD
    return model


@torch.no_grad()
def enlarge_weights(model: torch.nn.Module, factor: float = 3.0) -> None:
    """Multiply every matrix, since the usual initialisation makes a tiny model almost constant."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.mul_(factor)


def tiny_inputs(
    kind: str,
    prompt_lengths: tuple[int, ...] = (5, 3),
    num_latents: int = 4,
    seed: int = 0,
    suffix: tuple[int, ...] | None = None,
) -> dict[str, torch.Tensor]:
    """Make a left-padded batch: video, question of the given length, latent block.

    `suffix` is what follows the placeholders; by default the end marker (nothing without latents).
    """
    tokens, vision = _video(kind, len(prompt_lengths), seed)
    if suffix is None:
        suffix = (LATENT_END,) if num_latents else ()
    block = [LATENT_START, *[LATENT] * num_latents] if num_latents else []
    generator = torch.Generator().manual_seed(seed + 1)
    questions = [torch.randint(5, 90, (length,), generator=generator).tolist() for length in prompt_lengths]
    rows = [tokens + question + block + list(suffix) for question in questions]
    width = max(map(len, rows))
    input_ids = torch.tensor([[PAD] * (width - len(row)) + row for row in rows])
    attention_mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask, **vision}
    if kind in GRID_KINDS:
        inputs["mm_token_type_ids"] = (input_ids == VIDEO).int() * 2
    return inputs


def with_clip_mask(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Add `clip_token_mask`, as `PromptEncoder` does: all from the first placeholder of each row to the last one."""
    is_placeholder = torch.isin(inputs["input_ids"], torch.tensor([IMAGE, VIDEO])).int()  # (B, S)
    is_begun, is_not_over = is_placeholder.cumsum(dim=1), is_placeholder.flip(1).cumsum(dim=1).flip(1)
    return {**inputs, "clip_token_mask": (is_begun > 0) & (is_not_over > 0)}


def _video(kind: str, batch_size: int, seed: int) -> tuple[list[int], dict[str, torch.Tensor]]:
    """The placeholder tokens of one random video, and the vision inputs of the batch."""
    generator = torch.Generator().manual_seed(seed)
    if kind in GRID_KINDS:
        return _video_with_grid(kind, batch_size, generator)
    frames = 2
    if kind == "llava_onevision":
        pixels = torch.randn(batch_size, frames, 3, 28, 28, generator=generator)
        return [VIDEO] * (frames + 1), {"pixel_values_videos": pixels}  # one token per frame, and a newline
    if kind == "smolvlm":
        pixels = torch.randn(batch_size, frames, 3, 32, 32, generator=generator)
        mask = torch.ones(batch_size, frames, 32, 32, dtype=torch.bool)
        return [IMAGE] * (4 * frames), {"pixel_values": pixels, "pixel_attention_mask": mask}
    pixels = torch.randn(batch_size * frames, 3, 32, 32, generator=generator)
    return [IMAGE] * (4 * frames), {"pixel_values": pixels}


def _video_with_grid(
    kind: str, batch_size: int, generator: torch.Generator
) -> tuple[list[int], dict[str, torch.Tensor]]:
    time, height, width = 2, 4, 4
    patch = _VISION_OF[kind]["patch_size"]
    pixels = torch.randn(batch_size * time * height * width, 3 * 2 * patch * patch, generator=generator)
    vision = {"pixel_values_videos": pixels, "video_grid_thw": torch.tensor([[time, height, width]] * batch_size)}
    frame = [VIDEO] * (height * width // 4)
    if kind == "qwen2_5_vl":
        vision["second_per_grid_ts"] = torch.ones(batch_size)
        return [VISION_START, *frame * time, VISION_END], vision
    timestamps = range(20, 20 + time)  # one vision block per temporal patch, with the time written before it
    return [token for stamp in timestamps for token in (stamp, VISION_START, *frame, VISION_END)], vision


# --- a real processor, for what happens between words and tokens -------------------------------------------------------

_SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_CORPUS = (
    "user assistant system You are a helpful assistant.",
    "What happens next in the video? The ball rolls left, right, up, down. Yes or no? Where is the red ball now?",
    "Which cup hides the ball? first second third fourth",
)
# The template of Qwen2.5-VL, to the letter.
QWEN_CHAT_TEMPLATE = (
    "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n"
    "{% else %}{% for content in message['content'] %}{% if content['type'] == 'image' or 'image' in content or "
    "'image_url' in content %}{% set image_count.value = image_count.value + 1 %}{% if add_vision_id %}Picture "
    "{{ image_count.value }}: {% endif %}<|vision_start|><|image_pad|><|vision_end|>{% elif content['type'] == 'video' or "
    "'video' in content %}{% set video_count.value = video_count.value + 1 %}{% if add_vision_id %}Video "
    "{{ video_count.value }}: {% endif %}<|vision_start|><|video_pad|><|vision_end|>{% elif 'text' in content %}"
    "{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}"
    "<|im_start|>assistant\n{% endif %}"
)


def tiny_tokenizer() -> Qwen2TokenizerFast:
    """Train a byte-level BPE tokenizer of about 300 tokens with Qwen's special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=alphabet, special_tokens=list(_SPECIAL_TOKENS), show_progress=False
    )
    tokenizer.train_from_iterator(_CORPUS * 4, trainer)
    return Qwen2TokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        unk_token=None,
        additional_special_tokens=list(_SPECIAL_TOKENS),
    )


def tiny_processor() -> Qwen2_5_VLProcessor:
    """Make a Qwen2.5-VL processor for small pictures, as a plain checkpoint has it: without latent tokens."""
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size={"shortest_edge": 28 * 28, "longest_edge": 4 * 28 * 28}),
        tokenizer=tiny_tokenizer(),
        video_processor=Qwen2VLVideoProcessor(
            cap_pixels_per_frame=True,
            size={"shortest_edge": 28 * 28, "longest_edge": 16 * 28 * 28},
            do_sample_frames=False,
        ),
        chat_template=QWEN_CHAT_TEMPLATE,
    )


def tiny_qwen_config(processor: Qwen2_5_VLProcessor, **text_overrides: Any) -> PreTrainedConfig:
    """Configure a tiny Qwen2.5-VL for the tokens of `processor`, with a few spare rows of embeddings as Qwen has."""
    ids = {token: processor.tokenizer.convert_tokens_to_ids(token) for token in _SPECIAL_TOKENS}
    text = {
        "vocab_size": len(processor.tokenizer) + 8,
        "max_position_embeddings": 2048,
        "pad_token_id": ids["<|endoftext|>"],
        "bos_token_id": None,
        "eos_token_id": ids["<|im_end|>"],
        **text_overrides,
    }
    config = tiny_config("qwen2_5_vl", **text)
    config.image_token_id, config.video_token_id = ids["<|image_pad|>"], ids["<|video_pad|>"]
    config.vision_start_token_id, config.vision_end_token_id = ids["<|vision_start|>"], ids["<|vision_end|>"]
    return config


def tiny_qwen_checkpoint(path: Path, seed: int = 0, **text_overrides: Any) -> Path:
    """Save a plain Qwen2.5-VL, model and processor, in `path`; `StormForConditionalGeneration.from_backbone` reads it."""
    processor = tiny_processor()
    set_seed(seed)
    model = AutoModelForImageTextToText.from_config(tiny_qwen_config(processor, **text_overrides))
    enlarge_weights(model)
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path
