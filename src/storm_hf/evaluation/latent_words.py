"""Latents as words: the most probable tokens of the language model's head at the hidden state that a latent is made from.

Any model can be read so (the *logit lens*). Stage I with `step_words_weight` teaches these states to say the words of their step.

Axes: B batch, K latent steps, D hidden size, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import ProcessorMixin

from storm_hf.evaluation.batch import Answer
from storm_hf.evaluation.single import ClipQuestion, ask
from storm_hf.model import StormForConditionalGeneration


def latent_body(model: nn.Module) -> Any:
    """Return the [`StormModel`] of a STORM, or of a [`~peft.PeftModel`] around one. A checkpoint's may be of a class of its own."""
    return next(module for module in model.modules() if hasattr(module, "latent_projector"))


@contextmanager
def collected_states(model: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Collect the hidden states that latents are made from.

    Args:
        model (`nn.Module`):
            A [`StormForConditionalGeneration`], or a [`~peft.PeftModel`] around one, without the wrappers of accelerate.

    Yields:
        `list[torch.Tensor]`: What the latent projector got so far: one tensor `(batch_size, hidden_size)` for each step of a rollout, or
        one `(batch_size, num_latents, hidden_size)` for a parallel pass.
    """
    states: list[torch.Tensor] = []

    def collect(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        states.append(args[0])

    handle = latent_body(model).latent_projector.register_forward_pre_hook(collect)
    try:
        yield states
    finally:
        handle.remove()


def states_of_thought(states: Sequence[torch.Tensor], num_latents: int) -> torch.Tensor:
    """Join what was collected to the states of the first thought, of shape `(batch_size, num_latents, hidden_size)`."""
    return states[0] if states[0].ndim == 3 else torch.stack(list(states[:num_latents]), dim=1)


def read_latent_words(
    model: StormForConditionalGeneration,
    processor: ProcessorMixin,
    question: ClipQuestion,
    *,
    num_words: int = 5,
    num_latents: int | None = None,
) -> tuple[Answer, list[list[str]]]:
    """Answer a question, and read the words of each latent step.

    Args:
        model ([`StormForConditionalGeneration`]):
            The model. Its words mean something if Stage I taught them, by `step_words_weight`.
        processor ([`~transformers.ProcessorMixin`]):
            Its processor.
        question ([`ClipQuestion`]):
            Question to ask.
        num_words (`int`, *optional*, defaults to `5`):
            Tokens that are read of each step.
        num_latents (`int`, *optional*):
            Number K of latent steps, by default the model's.

    Returns:
        `tuple[Answer, list[list[str]]]`: The answer, and for each latent its most probable tokens, the first one first; none without
        latents.

    Raises:
        PromptError: If clip and question do not fit the model.
        LatentError: If the model cannot think for so many steps.
    """
    with collected_states(model) as states:
        answer = ask(model, processor, question, num_latents=num_latents)
    if answer.latents is None:
        return answer, []
    thought = states_of_thought(states, len(answer.latents))[0]  # (K, D)
    with torch.no_grad():
        ids = model.compute_logits(thought).topk(num_words, dim=-1).indices.tolist()
    return answer, [[processor.tokenizer.decode([token_id]).strip() for token_id in step] for step in ids]
