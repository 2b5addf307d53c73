"""An intervention on latents as a record, made by name and fed through the rollout's one seam.

Axes: N questions, B batch, K latent steps, D hidden size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from storm_hf.errors import ConfigurationError, LatentError
from storm_hf.interventions.kind import InterventionKind, read_kind
from storm_hf.model.rollout_storm import LatentIntervention


@dataclass(frozen=True, eq=False)
class Intervention:
    """Intervention on the latents of some questions.

    Args:
        kind ([`InterventionKind`], *optional*, defaults to `"own"`):
            Name of the intervention.
        fed (`np.ndarray` of shape `(num_questions, num_latents, hidden_size)`, *optional*):
            Latents that are fed instead of the model's own.
        steps (`Sequence[int]`, *optional*):
            Steps that are replaced, counted from 0, by default all. The model rolls out the others itself.
        donors (`np.ndarray` of shape `(num_questions,)`, *optional*):
            Questions whose latents are fed; a question that is its own donor has none.
        label (`str`, *optional*):
            Name for tables and charts, by default that of the kind.

    Raises:
        ConfigurationError: If there is no such kind.
        LatentError: If `fed` has not three axes.
    """

    kind: InterventionKind = InterventionKind.own
    fed: np.ndarray | None = None
    steps: Sequence[int] | None = None
    donors: np.ndarray | None = None
    label: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", read_kind(self.kind))
        object.__setattr__(self, "label", self.label or self.kind.label)
        if self.fed is not None and self.fed.ndim != 3:
            raise LatentError(
                f"Expected latents of shape (questions, steps, hidden size), got {self.fed.shape}. Stack the `latents` of "
                "answers."
            )

    @property
    def replaced(self) -> tuple[int, ...]:
        """Steps that are replaced."""
        if self.fed is None:
            return ()
        return tuple(range(self.fed.shape[1]) if self.steps is None else self.steps)

    def feed(self, rows: range) -> LatentIntervention | None:
        """Make the `latent_intervention` of `generate` for a batch of the questions; `None` feeds the model's own."""
        if self.fed is None:
            return None
        given, replaced = torch.from_numpy(self.fed[rows.start : rows.stop].copy()), self.replaced  # (B, K, D)

        def replace(step: int, latent: torch.Tensor) -> torch.Tensor:
            return given[:, step].to(latent) if step in replaced else latent

        return replace

    def generation_arguments(self, rows: range = range(1)) -> dict[str, Any]:
        """Make the arguments of `generate` for a batch of the questions.

        Raises:
            ConfigurationError: For `markers_only`, which is another prompt.
        """
        if self.kind == InterventionKind.markers_only:
            raise ConfigurationError(
                "`markers_only` is another prompt, not an argument of `generate`. Ask `storm diagnose`."
            )
        arguments: dict[str, Any] = {} if self.fed is None else {"latent_intervention": self.feed(rows)}
        if self.kind == InterventionKind.no_latents:
            arguments["num_latents"] = 0
        if self.kind == InterventionKind.latents_only:
            arguments["latent_bottleneck"] = True
        return arguments


def make_intervention(
    kind: InterventionKind | str,
    latents: np.ndarray,
    *,
    donors: np.ndarray | None = None,
    targets: np.ndarray | None = None,
    steps: Sequence[int] | None = None,
    source: int | None = None,
    scale: float = 1.0,
    seed: int | Sequence[int] = 0,
) -> Intervention:
    """Make an intervention by name.

    Args:
        kind ([`InterventionKind`] or `str`):
            Name of the intervention.
        latents (`np.ndarray` of shape `(num_questions, num_latents, hidden_size)`):
            Latents of the rollouts without an intervention.
        donors (`np.ndarray` of shape `(num_questions,)`, *optional*):
            Positions of the questions whose latents are fed by `donor` and `shuffled`.
        targets (`np.ndarray` of the shape of `latents`, *optional*):
            Target trajectories, for `oracle`.
        steps (`Sequence[int]`, *optional*):
            Steps that are replaced, counted from 0, by default all.
        source (`int`, *optional*):
            Step whose latent is fed at every replaced step, counted from 0. By default each step gets that of its own number.
        scale (`float`, *optional*, defaults to `1.0`):
            Spread of noise, in units of that of the latents.
        seed (`int` or `Sequence[int]`, *optional*, defaults to `0`):
            Seed of noise, which does not depend on the device; a sequence has one for each question.

    Raises:
        ConfigurationError: If there is no such kind or step, or the kind needs donors or targets that are not given.
    """
    kind = read_kind(kind)
    _check(kind, latents.shape[1], donors, targets, (*(steps or ()), *(() if source is None else (source,))))
    contents: dict[InterventionKind, Callable[[], np.ndarray | None]] = {
        InterventionKind.zero: lambda: np.zeros_like(latents),
        InterventionKind.noise_per_question: lambda: _noise_of_each(latents, scale, seed),
        InterventionKind.noise_per_dataset: lambda: _noise_like(latents, scale, seed),
        InterventionKind.mean_over_steps: lambda: np.broadcast_to(latents.mean(axis=1, keepdims=True), latents.shape),
        InterventionKind.mean_over_questions: lambda: np.broadcast_to(latents.mean(axis=0), latents.shape),
        InterventionKind.first: lambda: np.broadcast_to(latents[:, :1], latents.shape),
        InterventionKind.donor: lambda: latents[donors],
        InterventionKind.shuffled: lambda: latents[donors],
        InterventionKind.oracle: lambda: targets,
    }
    if source is not None:
        contents[InterventionKind.own] = lambda: latents
    fed = contents[kind]() if kind in contents else None
    if fed is not None and source is not None:
        fed = np.broadcast_to(fed[:, source, None], fed.shape)
    label = kind.label if scale == 1 else kind.label.replace("Noise of", f"Noise of {scale:g} times")
    return Intervention(kind, fed, steps, donors, label)


def _check(
    kind: InterventionKind,
    num_latents: int,
    donors: np.ndarray | None,
    targets: np.ndarray | None,
    steps: Sequence[int],
) -> None:
    for step in steps:
        if not 0 <= step < num_latents:
            raise ConfigurationError(f"Expected a step from 1 to {num_latents} but got {step + 1}.")
    if kind in (InterventionKind.donor, InterventionKind.shuffled) and donors is None:
        raise ConfigurationError(f"`{kind}` feeds the latents of other questions. Say with `donors` of which.")
    if kind == InterventionKind.oracle and targets is None:
        raise ConfigurationError("`oracle` feeds target trajectories. Give them as `targets`.")


def _noise_of_each(latents: np.ndarray, scale: float, seed: int | Sequence[int]) -> np.ndarray:
    seeds = range(seed, seed + len(latents)) if isinstance(seed, int) else seed
    return np.stack([_noise_like(own, scale, each) for own, each in zip(latents, seeds, strict=True)])


def _noise_like(latents: np.ndarray, scale: float, seed: int | Sequence[int]) -> np.ndarray:
    """Draw normal numbers with the mean and the spread of some latents, and nothing else of them."""
    draws = np.random.default_rng(seed).standard_normal(latents.shape)
    return (latents.mean() + scale * latents.std() * draws).astype(latents.dtype)
