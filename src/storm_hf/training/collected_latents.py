"""Latents of a forward pass through TRL's fused head, which returns log-probabilities alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from transformers.utils import ModelOutput
from trl.trainer.utils import FusedCausalLMOutput

from storm_hf.evaluation.latent_words import latent_body


@dataclass
class _OutputWithLatents(FusedCausalLMOutput):
    """TRL's output with latents: weights that no output depends on, DistributedDataParallel takes for unused."""

    latents: torch.Tensor | None = None


@contextmanager
def collected_latents(model: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Collect the model's own latents of every forward pass.

    Args:
        model (`nn.Module`):
            A [`StormForConditionalGeneration`] with TRL's fused head, or a [`~peft.PeftModel`] around one, without the wrappers
            of accelerate.

    Yields:
        `list[torch.Tensor]`: One tensor of shape `(batch_size, num_latents, hidden_size)` for each forward pass so far.
    """
    latents: list[torch.Tensor] = []

    def collect(module: nn.Module, args: tuple, output: ModelOutput) -> None:
        latents.append(output.latents)

    def pass_on(module: nn.Module, args: tuple, output: ModelOutput) -> ModelOutput:
        return output if "latents" in output else _OutputWithLatents(**output, latents=latents[-1])

    handles = [latent_body(model).register_forward_hook(collect), model.register_forward_hook(pass_on)]
    try:
        yield latents
    finally:
        for handle in handles:
            handle.remove()
