"""Configuration of Stage II."""

import inspect
from dataclasses import dataclass
from typing import Any

from storm_hf.answer.objective import HaltingPrior
from storm_hf.errors import ConfigurationError
from storm_hf.settings import NonNegativeFloat, PositiveFloat, check_values, with_help
from storm_hf.training.config import StormTrainingConfig


@with_help
@dataclass
class StormAnswerConfig(StormTrainingConfig):
    r"""
    Configuration class for the [`StormAnswerTrainer`]. It adds to what both stages share:

    Parameters:
        halting (`bool`, *optional*, defaults to `False`):
            Whether to train a halting head, which is added if the model has none: the answer is learned after every latent, weighted
            with the probability that the thought ends there, and the model then thinks for as long as a question needs, up to
            `num_latents`. The latents themselves should be correct by then: start from Stage I, or from a finished Stage II.
        halting_prior (`str`, *optional*, defaults to `"geometric"`):
            Lengths of thought that are expected beforehand: `"geometric"`, short ones, or `"uniform"`, all alike, which rewards
            entropy and no brevity.
        halting_prior_steps (`float`, *optional*, defaults to `3.0`):
            Mean length of the geometric prior, before it is cut off at `num_latents`.
        halting_weight (`float`, *optional*, defaults to `0.01`):
            Weight of the divergence from the prior, PonderNet's. What is shorter is cheaper by it; too high, and thoughts end before
            they are done.
        halting_learning_rate (`float`, *optional*):
            Learning rate of the halting head, which starts from nothing: with a small `learning_rate` it wants about a hundred
            times as much. By default `learning_rate`.
        learning_rate (`float`, *optional*, defaults to `1e-6`):
            Initial learning rate, a tenth of Stage I's. At Stage I's rate the rollout that Stage I built can be destroyed before it is repaired.
    """

    halting: bool = False
    halting_prior: HaltingPrior = "geometric"
    halting_prior_steps: float = 3.0
    halting_weight: NonNegativeFloat = 0.01
    halting_learning_rate: PositiveFloat | None = None
    learning_rate: float = 1e-6

    def __post_init__(self) -> None:
        check_values(self, inspect.get_annotations(StormAnswerConfig))
        if self.halting_prior_steps < 1:
            raise ConfigurationError(f"`halting_prior_steps` must be 1 or more, got {self.halting_prior_steps}.")
        super().__post_init__()
        if self.halting:
            self._check_halting()

    def _check_halting(self) -> None:
        given: Any = self  # the types of TRL's arguments are not known here
        excluded = {
            "num_latents: 0": self.num_latents == 0,
            "min_num_latents": self.min_num_latents is not None,
            "bottleneck_share": self.bottleneck_share > 0,
            "jacobi_sweeps": self.jacobi_sweeps is not None,
            "label_smoothing_factor": given.label_smoothing_factor > 0,
            "loss_type": given.loss_type != "nll",
        }
        if wrong := [name for name, is_given in excluded.items() if is_given]:
            raise ConfigurationError(
                f"`halting` answers after each of all latent steps, with its own loss, which `{wrong[0]}` contradicts. Leave one of "
                "the two out."
            )
