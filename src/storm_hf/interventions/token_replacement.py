"""Token replacement test: answers again with other latents in the slots.

If answers do not change, the latents are decoration. Zeros, noise and means are inputs that the model never saw; another
clip's latents (a donor) and an edit in the middle of the rollout are the clean tests.

Axes: N questions, K latent steps, D hidden size.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from storm_hf.interventions.intervention import Intervention, make_intervention
from storm_hf.interventions.kind import InterventionKind


_NOISE_SCALES = (0.5, 1.0, 2.0)  # in units of the latents' own spread


def token_replacements(
    latents: np.ndarray, donors: np.ndarray, targets: np.ndarray | None = None, seed: int = 0
) -> dict[str, Intervention]:
    """Make the interventions of the token replacement test on the questions of a data set.

    Args:
        latents (`np.ndarray` of shape `(num_questions, num_latents, hidden_size)`):
            The model's own latents.
        donors (`np.ndarray` of shape `(num_questions,)`):
            See [`choose_donors`].
        targets (`np.ndarray` of the shape of `latents`, *optional*):
            The true thoughts, for `oracle`.
        seed (`int`, *optional*, defaults to `0`):
            Of noise and shuffling.

    Returns:
        `dict[str, Intervention]`: By the name of the kind, with the scale behind that of noise of another spread. `own` comes
        first and replaces nothing.
    """
    kind = InterventionKind
    make = partial(make_intervention, latents=latents, targets=targets, seed=seed)
    made: dict[str, Intervention] = {
        kind.own: make(kind.own),
        kind.zero: make(kind.zero),
        **{_noise_name(scale): make(kind.noise_per_dataset, scale=scale) for scale in _NOISE_SCALES},
        kind.mean_over_questions: make(kind.mean_over_questions),
        kind.first: make(kind.first),
        kind.shuffled: make(kind.shuffled, donors=shuffle_donors(len(latents), seed)),
        kind.donor: make(kind.donor, donors=donors),
        kind.markers_only: make(kind.markers_only),
        kind.no_latents: make(kind.no_latents),
        kind.latents_only: make(kind.latents_only),
    }
    return made if targets is None else {**made, kind.oracle: make(kind.oracle)}


def step_replacements(latents: np.ndarray, donors: np.ndarray) -> dict[str, Intervention]:
    """Make the interventions of the curves over steps: a donor's latent in step k alone, and in all steps from k on.

    Returns:
        `dict[str, Intervention]`: `only_0`, `from_0`, `only_1` and so on, arguments as in [`token_replacements`].
    """
    num_steps = latents.shape[1]
    spans = {f"only_{step}": [step] for step in range(num_steps)}
    spans |= {f"from_{step}": list(range(step, num_steps)) for step in range(num_steps)}
    return {
        name: Intervention(InterventionKind.donor, latents[donors], steps, donors, name.replace("_", " step "))
        for name, steps in spans.items()
    }


def choose_donors(rows: Sequence[Mapping[str, Any]], seed: int = 0) -> np.ndarray:
    """Choose for each question another one that asks the same and has another answer, so that following it can be seen.

    Args:
        rows (`Sequence`):
            Rows of a storm-thoughts data set. Where questions come in several wordings, the columns `usual_question` and
            `outcome` say what is asked and what is correct.
        seed (`int`, *optional*, defaults to `0`):
            Of the choice.

    Returns:
        `np.ndarray` of shape `(num_questions,)`: Position of the donor; its own position where there is none.
    """
    generator = np.random.default_rng(seed)
    wording, answer = np.asarray([usual_wording(row) for row in rows]).reshape(-1, 2).T
    donors = np.arange(len(answer))
    for index in range(len(answer)):
        others = np.flatnonzero((wording == wording[index]) & (answer != answer[index]))
        if len(others):
            donors[index] = generator.choice(others)
    return donors


def usual_wording(row: Mapping[str, Any]) -> tuple[str, str]:
    """Read question and answer of a row as they are in the usual wording; see [`~storm_hf.worlds.Asked`]."""
    question, answer = row.get("usual_question"), row.get("outcome")
    return str(row["question"] if question is None else question), str(row["answer"] if answer is None else answer)


def shuffle_donors(count: int, seed: int = 0) -> np.ndarray:
    """Give each of so many questions another one, whatever its answer: a random cycle through all of them."""
    order = np.random.default_rng(seed).permutation(count)
    others = np.empty_like(order)
    others[order] = np.roll(order, 1)
    return others


def _noise_name(scale: float) -> str:
    name = InterventionKind.noise_per_dataset
    return name if scale == 1 else f"{name}_{scale:g}"
