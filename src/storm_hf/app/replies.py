"""What a session hands out: answers, what they cost, and what was fed on the way to them."""

from dataclasses import dataclass

import numpy as np

from storm_hf.app.sight import SeenStep
from storm_hf.evaluation.asking import ClipQuestion
from storm_hf.interventions.intervention import Intervention


@dataclass(frozen=True, eq=False)
class Reply:
    """An answer and what it cost.

    Args:
        text (`str`):
            What the model said.
        forward_passes (`int`):
            Calls of the language model before its first word, the reading of the prompt included.
        seconds (`float`):
            Wall time of the whole answer.
        steps (`tuple[SeenStep, ...]`):
            What was fed at each latent step, to be looked at; empty without latents.
        latents (`np.ndarray` of shape `(num_latents, hidden_size)`, *optional*):
            The same, in numbers.
    """

    text: str
    forward_passes: int
    seconds: float
    steps: tuple[SeenStep, ...] = ()
    latents: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Thinking:
    """What a model made of one question.

    Args:
        question ([`~storm_hf.evaluation.ClipQuestion`]):
            What was asked.
        own ([`Reply`]):
            Its answer after thinking.
        direct ([`Reply`]):
            Its answer without a latent.
    """

    question: ClipQuestion
    own: Reply
    direct: Reply


@dataclass(frozen=True, eq=False)
class Rethinking:
    """What a model made of the same question with latents replaced.

    Args:
        reply ([`Reply`]):
            Its answer; its steps are what was fed.
        intervention ([`~storm_hf.interventions.intervention.Intervention`]):
            Intervention on the latents.
        donor (`str`, *optional*):
            What it answers about the clip that the latents came from; None if they came from no other clip.
    """

    reply: Reply
    intervention: Intervention
    donor: str | None = None
