"""Stock processors of several backbones around a tokenizer that was trained here: they write for a clip what they write for anybody's.

stock_processor(kind)   a processor without latent tokens, for one of `PROCESSORS`
"""

from collections.abc import Callable

from tests.tiny import tiny_processor, tiny_tokenizer
from transformers import (
    Glm4vImageProcessor,
    Glm4vProcessor,
    Glm4vVideoProcessor,
    GotOcr2ImageProcessor,
    InternVLProcessor,
    InternVLVideoProcessor,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    ProcessorMixin,
    Qwen2VLImageProcessor,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)
from transformers.models.smolvlm import processing_smolvlm


_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}VIDEO{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _tokenizer(*tokens: str, **named: str):
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([*tokens, *named.values()], special_tokens=True)
    for name, token in named.items():
        setattr(tokenizer, name, token)
        setattr(tokenizer, f"{name}_id", tokenizer.convert_tokens_to_ids(token))
    return tokenizer


def _qwen3_vl() -> ProcessorMixin:
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=16),
        tokenizer=tiny_tokenizer(),
        video_processor=Qwen3VLVideoProcessor(
            do_sample_frames=False, size={"shortest_edge": 32 * 32 * 4, "longest_edge": 64 * 64 * 16}
        ),
        chat_template=_TEMPLATE.replace("VIDEO", "<|vision_start|><|video_pad|><|vision_end|>"),
    )


def _smolvlm() -> ProcessorMixin:
    processing_smolvlm.num2words = processing_smolvlm.num2words or str  # an optional package: numbers in words
    size = {"longest_edge": 32}
    return SmolVLMProcessor(
        image_processor=SmolVLMImageProcessor(size=size, max_image_size=size),
        tokenizer=_tokenizer(
            image_token="<image>",
            fake_image_token="<fake_token_around_image>",
            global_image_token="<global-img>",
            end_of_utterance_token="<end_of_utterance>",
            video_token="<video>",
        ),
        video_processor=SmolVLMVideoProcessor(
            do_sample_frames=False,
            size=size,
            max_image_size=size,
            video_sampling={"video_size": size, "fps": 1, "max_frames": 64},
        ),
        image_seq_len=4,
        chat_template=_TEMPLATE.replace("VIDEO", "<video>"),
    )


def _internvl() -> ProcessorMixin:
    size = {"height": 32, "width": 32}
    return InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size=size),
        tokenizer=_tokenizer(
            start_image_token="<img>",
            end_image_token="</img>",
            context_image_token="<IMG_CONTEXT>",
            video_token="<video>",
        ),
        video_processor=InternVLVideoProcessor(do_sample_frames=False, size=size),
        image_seq_length=4,
        chat_template=_TEMPLATE.replace("VIDEO", "<video>\n"),
    )


def _llava_onevision() -> ProcessorMixin:
    size = {"height": 28, "width": 28}
    return LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=[[28, 28]]),
        tokenizer=_tokenizer("<image>", "<video>"),
        video_processor=LlavaOnevisionVideoProcessor(do_sample_frames=False, size=size),
        num_image_tokens=4,
        vision_feature_select_strategy="full",
        chat_template=_TEMPLATE.replace("VIDEO", "<video>"),
    )


def _glm4v() -> ProcessorMixin:
    return Glm4vProcessor(
        image_processor=Glm4vImageProcessor(),
        tokenizer=_tokenizer(
            "<|begin_of_image|>",
            "<|end_of_image|>",
            "<|begin_of_video|>",
            "<|end_of_video|>",
            image_token="<|image|>",
            video_token="<|video|>",
        ),
        video_processor=Glm4vVideoProcessor(do_sample_frames=False),
        chat_template=_TEMPLATE.replace("VIDEO", "<|begin_of_video|><|video|><|end_of_video|>"),
    )


PROCESSORS: dict[str, Callable[[], ProcessorMixin]] = {
    "qwen2_5_vl": tiny_processor,
    "qwen3_vl": _qwen3_vl,
    "smolvlm": _smolvlm,
    "internvl": _internvl,
    "llava_onevision": _llava_onevision,
    "glm4v": _glm4v,
}


def stock_processor(kind: str) -> ProcessorMixin:
    """Make the processor of a backbone."""
    return PROCESSORS[kind]()
