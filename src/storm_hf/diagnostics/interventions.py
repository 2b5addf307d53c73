"""What the token replacement test puts in the place of a model's latents, by name.

Axes: N questions, K latent steps, D hidden size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from storm_hf.diagnostics.replacement import replacement
from storm_hf.evaluation.replacement import feed
from storm_hf.model.rollout_storm import LatentIntervention


Layout = Literal["latents", "markers", "skipped", "without_clip"]

NOISE_SCALES = (0.5, 1.0, 2.0)  # in units of the latents' own spread; at 1 it is called `noise`
CONTENT_FREE = ("zero", "noise", "mean", "markers_only", "skipped")


@dataclass(frozen=True, eq=False)
class Intervention:
    """One way to answer again.

    Args:
        label (`str`):
            What is done, for people.
        fed (`np.ndarray` of shape `(num_questions, num_latents, hidden_size)`, *optional*):
            What is fed instead of the model's own latents; None lets it think.
        steps (`Sequence[int]`, *optional*):
            Steps that are replaced, counted from 0. By default all. Later steps are thought by the model itself.
        layout (`str`, *optional*, defaults to `"latents"`):
            `markers` keeps the start and end tokens without a latent between them, `skipped` leaves both out (K = 0).
            `without_clip` thinks as ever and answers from the prompt without its clip: from the latents alone.
        donors (`np.ndarray` of shape `(num_questions,)`, *optional*):
            Whose latents are fed; a question that is its own donor has none.
    """

    label: str
    fed: np.ndarray | None = None
    steps: Sequence[int] | None = None
    layout: Layout = "latents"
    donors: np.ndarray | None = None

    @property
    def for_rows(self) -> Callable[[range], LatentIntervention] | None:
        """What `answer_questions(intervene=...)` takes."""
        return None if self.fed is None else feed(self.fed, self.steps)


def token_replacements(
    latents: np.ndarray, donors: np.ndarray, targets: np.ndarray | None = None, seed: int = 0
) -> dict[str, Intervention]:
    """Make the interventions of the token replacement test.

    Args:
        latents (`np.ndarray` of shape `(num_questions, num_latents, hidden_size)`):
            The model's own latents.
        donors (`np.ndarray` of shape `(num_questions,)`):
            See `choose_donors`.
        targets (`np.ndarray` of the shape of `latents`, *optional*):
            The true thoughts, for `oracle`.
        seed (`int`, *optional*, defaults to `0`):
            Of noise and shuffling.

    Returns:
        `dict[str, Intervention]`: By name. `own` comes first and replaces nothing.
    """
    others = shuffled(len(latents), seed)
    made = {
        "own": Intervention("Its own latents"),
        "zero": Intervention("Zeros", replacement("zero", latents)),
        **{_noise_name(scale): _noise(latents, scale, seed) for scale in NOISE_SCALES},
        "mean": Intervention("The mean latent of each step", replacement("mean", latents)),
        "first_repeated": Intervention("The first latent in every step", replacement("first", latents)),
        "shuffled": Intervention("Any other clip's latents", latents[others], donors=others),
        "swap": Intervention(
            "Latents of a clip with another answer", replacement("swap", latents, donors=donors), donors=donors
        ),
        "markers_only": Intervention("Start and end tokens, nothing between", layout="markers"),
        "skipped": Intervention("No latents at all (K = 0)", layout="skipped"),
        "without_clip": Intervention("Its own latents, the clip taken from the answer", layout="without_clip"),
    }
    if targets is not None:
        made["oracle"] = Intervention("The true thoughts", targets)
    return made


def step_replacements(latents: np.ndarray, donors: np.ndarray) -> dict[str, Intervention]:
    """Make the interventions of the curves over steps: a donor's latent in step k alone, and in all steps from k on.

    Returns:
        `dict[str, Intervention]`: `only_0`, `from_0`, `only_1` and so on, arguments as in [`token_replacements`].
    """
    num_steps, fed = latents.shape[1], latents[donors]
    spans = {f"only_{step}": [step] for step in range(num_steps)}
    spans |= {f"from_{step}": list(range(step, num_steps)) for step in range(num_steps)}
    return {
        name: Intervention(name.replace("_", " step "), fed, steps=steps, donors=donors)
        for name, steps in spans.items()
    }


def shuffled(count: int, seed: int = 0) -> np.ndarray:
    """Give each of so many questions another one, whatever its answer: a random cycle through all of them."""
    order = np.random.default_rng(seed).permutation(count)
    others = np.empty_like(order)
    others[order] = np.roll(order, 1)
    return others


def _noise_name(scale: float) -> str:
    return "noise" if scale == 1 else f"noise_{scale:g}"


def _noise(latents: np.ndarray, scale: float, seed: int) -> Intervention:
    label = "Noise of their size" if scale == 1 else f"Noise of {scale:g} times their size"
    return Intervention(label, replacement("noise", latents, scale=scale, seed=seed))
