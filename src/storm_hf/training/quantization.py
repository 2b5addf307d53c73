"""A language model in 4 or 8 bits below an adapter: QLoRA (arXiv 2305.14314), with the rest of a STORM as it is."""

from dataclasses import replace

import torch
from transformers import BitsAndBytesConfig, PreTrainedConfig
from trl import ModelConfig, get_quantization_config

from storm_hf.model import StormConfig, StormForConditionalGeneration
from storm_hf.optional import require
from storm_hf.training.adapter import outside_decoder


def quantization(args: ModelConfig, config: PreTrainedConfig) -> BitsAndBytesConfig | None:
    """Configure the quantization that a run's arguments ask for.

    Only projections of the language model are quantized. The latent projector is trained, the targets of Stage I are made by
    the vision tower and its merger, and TRL multiplies with the weights of the head: these stay as they are.

    Args:
        args ([`~trl.ModelConfig`]):
            `load_in_4bit` or `load_in_8bit`, and what goes with them.
        config ([`~transformers.PreTrainedConfig`]):
            Configuration of the checkpoint, plain or a STORM.

    Returns:
        [`~transformers.BitsAndBytesConfig`] or `None`: What `from_pretrained` takes as `quantization_config`.

    Raises:
        MissingExtraError: If `bitsandbytes` is not installed.
    """
    if not (args.load_in_4bit or args.load_in_8bit):
        return None
    require("bitsandbytes")
    compute = "bfloat16" if args.dtype in (None, "auto") else args.dtype
    quantized = get_quantization_config(replace(args, dtype=compute))
    if config.model_type != StormConfig.model_type:
        config = StormConfig(vlm_config=config)
    with torch.device("meta"):
        quantized.llm_int8_skip_modules = outside_decoder(StormForConditionalGeneration(config))
    return quantized
