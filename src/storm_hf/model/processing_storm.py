"""Latent tokens and the latent block, added to a backbone's own processor.

The processor stays the backbone's class, so that it loads without remote code. Its tokenizer learns three special tokens, and
its chat template, kept as it is, gets one more part that writes the latent block after the assistant header.
"""

from __future__ import annotations

from typing import Any

import transformers  # its names load when they are used: processors bring torchvision, which a model does not need

from .errors_storm import BackboneError


LATENT_TOKENS = ("<|latent_start|>", "<|latent|>", "<|latent_end|>")
_MARK = "{#- the latent block of STORM -#}"
_LATENT_BLOCK = """{%- if add_generation_prompt -%}
    {%- set num_latents = num_latents if num_latents is defined and num_latents is not none else NUM_LATENTS -%}
    {%- if num_latents > 0 -%}
        {{- '<|latent_start|>' -}}{%- for _ in range(num_latents) -%}{{- '<|latent|>' -}}{%- endfor -%}{{- '<|latent_end|>' -}}
    {%- endif -%}
{%- endif -%}"""


def add_latent_tokens(processor: transformers.ProcessorMixin, num_latents: int = 8) -> transformers.ProcessorMixin:
    """Teach a backbone's processor the three latent tokens and the latent block, in place.

    Args:
        processor ([`~transformers.ProcessorMixin`]):
            The backbone's processor. Calling this twice only changes the default K.
        num_latents (`int`, *optional*, defaults to `8`):
            Number of placeholders that the chat template writes; `apply_chat_template(..., num_latents=k)` overrides it
            for one call, and `0` writes no block at all.

    Returns:
        [`~transformers.ProcessorMixin`]: The same processor, padding on the left.

    Raises:
        BackboneError: If the processor reads no videos or has no chat template.
    """
    if getattr(processor, "video_processor", None) is None:
        raise BackboneError(
            f"STORM thinks about videos, but a {type(processor).__name__} has no video processor. Use a video-language "
            "backbone such as Qwen2.5-VL, Qwen3-VL, LLaVA-OneVision, SmolVLM or InternVL."
        )
    if not isinstance(processor.chat_template, str):
        raise BackboneError(
            f"Expected one chat template on the {type(processor).__name__}, got {type(processor.chat_template).__name__}. "
            "Set `processor.chat_template` to the template of the instruction-tuned checkpoint."
        )
    tokens = [transformers.AddedToken(token, special=True, normalized=False) for token in LATENT_TOKENS]
    processor.tokenizer.add_tokens(tokens, special_tokens=True)
    processor.tokenizer.padding_side = "left"
    processor.tokenizer.init_kwargs["padding_side"] = "left"  # what `save_pretrained` writes
    stock, _, _ = processor.chat_template.partition(_MARK)
    processor.chat_template = stock + _MARK + _LATENT_BLOCK.replace("NUM_LATENTS", str(num_latents))
    return processor


def storm_processor(name_or_path: str, num_latents: int = 8, **kwargs: Any) -> transformers.ProcessorMixin:
    """Load a backbone's processor and add the latent tokens.

    Args:
        name_or_path (`str`):
            The backbone's checkpoint, on the Hub or in a folder.
        num_latents (`int`, *optional*, defaults to `8`):
            Number K of latent steps that the chat template writes.
        kwargs:
            Passed to `AutoProcessor.from_pretrained`.

    Raises:
        BackboneError: If the processor reads no videos or has no chat template.
    """
    return add_latent_tokens(transformers.AutoProcessor.from_pretrained(name_or_path, **kwargs), num_latents)
