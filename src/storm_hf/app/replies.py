"""Results of a session: answers, their cost, and the latents that were fed."""

from dataclasses import dataclass

import numpy as np

from storm_hf.app.latent_view import SeenStep
from storm_hf.evaluation.asking import ClipQuestion
from storm_hf.interventions.intervention import Intervention


@dataclass(frozen=True, eq=False)
class Reply:
    """An answer and what it cost.

    Args:
        text (`str`):
            Text of the answer.
        forward_passes (`int`):
            Calls of the language model before its first word, the reading of the prompt included.
        seconds (`float`):
            Wall time of the whole answer.
        steps (`tuple[SeenStep, ...]`):
            Latents that were fed at each step, for display; empty without latents.
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
    """Answers of a model to one question, with its own latents and without.

    Args:
        question ([`~storm_hf.evaluation.ClipQuestion`]):
            Question that was asked.
        own ([`Reply`]):
            Its answer after thinking.
        direct ([`Reply`]):
            Its answer without a latent.
    """

    question: ClipQuestion
    own: Reply
    direct: Reply


@dataclass(frozen=True, eq=False)
class InterventionAnswer:
    """Answer of a model to the same question with replaced latents.

    Args:
        reply ([`Reply`]):
            Its answer; its steps are what was fed.
        intervention ([`~storm_hf.interventions.intervention.Intervention`]):
            Intervention on the latents.
        donor (`str`, *optional*):
            Answer about the clip that the latents came from; None if they came from no other clip.
    """

    reply: Reply
    intervention: Intervention
    donor: str | None = None
