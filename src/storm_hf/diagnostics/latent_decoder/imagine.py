"""Rendering of a model's own latents while it answers.

Axes: K latent steps, D hidden size, H height, W width, in pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import ProcessorMixin

from storm_hf.diagnostics.latent_decoder.decoder import ThoughtDecoder
from storm_hf.errors import LatentError
from storm_hf.evaluation.batch import Answer, answer_questions
from storm_hf.inputs.prompts import PromptEncoder
from storm_hf.model.modeling_storm import StormForConditionalGeneration
from storm_hf.worlds import World


@dataclass(frozen=True, eq=False)
class Imagination:
    """Latents of a model between a question and its answer.

    Args:
        answer ([`~storm_hf.evaluation.Answer`]):
            Answer of the model.
        latents (`np.ndarray` of shape `(num_latents, hidden_size)`):
            Its latents.
        frames (`np.ndarray` of shape `(num_latents, height, width, 3)`):
            The same, drawn, `uint8`.
    """

    answer: Answer
    latents: np.ndarray
    frames: np.ndarray


def imagine(
    model: StormForConditionalGeneration,
    processor: ProcessorMixin,
    rows: Sequence[Mapping[str, Any]],
    decoder: ThoughtDecoder,
    *,
    num_latents: int | None = None,
    max_new_tokens: int = 16,
) -> list[Imagination]:
    """Let a model answer, and draw each latent on its way.

    Args:
        model ([`StormForConditionalGeneration`]):
            It rolls out its own latents and never sees a thought video.
        processor ([`~transformers.ProcessorMixin`]):
            Its processor.
        rows (`Sequence[Mapping[str, Any]]`):
            Rows with `video` and `question`.
        decoder ([`ThoughtDecoder`]):
            Draws.
        num_latents (`int`, *optional*):
            Latent steps, instead of the model's own number.
        max_new_tokens (`int`, *optional*, defaults to `16`):
            Longest answer.

    Raises:
        LatentError: If the model thinks in no latents.
    """
    num_latents = model.config.num_latents if num_latents is None else num_latents
    if num_latents == 0:
        raise LatentError("Expected a model that thinks in 1 latent or more but this one has 0. Set num_latents.")
    prompts = PromptEncoder(processor, model.config, num_latents)
    asked = [{name: value for name, value in row.items() if not name.startswith("thought_")} for row in rows]
    answers = answer_questions(model, prompts, asked, max_new_tokens=max_new_tokens)
    latents = [np.asarray(answer.latents) for answer in answers]
    return [Imagination(answer, own, decoder.draw(own)) for answer, own in zip(answers, latents, strict=True)]


def states_drawn_right(
    world: World[Any], frames: Sequence[np.ndarray], states: Sequence[Sequence[str]]
) -> tuple[float, float]:
    """Let the world read drawn frames: how many show the true state?

    Args:
        world ([`~storm_hf.worlds.World`]):
            Reads; see its `read_frame`.
        frames (`Sequence[np.ndarray]` of shape `(num_latents, height, width, 3)`):
            Of each row.
        states (`Sequence[Sequence[str]]`):
            True state after each step, of each row.

    Returns:
        `tuple[float, float]`: The accuracy, and that of always naming the most frequent state.
    """
    read = [[world.read_frame(frame) for frame in row] for row in frames]
    right = [
        named == true for row, truth in zip(read, states, strict=True) for named, true in zip(row, truth, strict=True)
    ]
    everything = [state for truth in states for state in truth]
    most_frequent = max(everything.count(state) for state in set(everything)) / len(everything)
    return float(np.mean(right)), most_frequent
