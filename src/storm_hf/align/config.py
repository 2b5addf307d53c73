"""Configuration of Stage I."""

import inspect
from dataclasses import dataclass
from typing import Any, Literal

from storm_hf.align.objective import AlignLoss, Reduction
from storm_hf.errors import ConfigurationError
from storm_hf.model.rollout_storm import RolloutGradient
from storm_hf.settings import NonNegativeFloat, PositiveInt, check_values, with_help
from storm_hf.target_trajectory.pool import Layout, Pooling
from storm_hf.target_trajectory.trajectory import Normalization
from storm_hf.target_trajectory.whiten import SlotStatistics
from storm_hf.training.config import StormTrainingConfig


Forcing = Literal["teacher", "rollout", "scheduled"]


@with_help
@dataclass
class StormAlignConfig(StormTrainingConfig):
    r"""
    Configuration class for the [`StormAlignTrainer`]. It adds to what both stages share:

    Parameters:
        align_weight (`float`, *optional*, defaults to `3.0`):
            Weight of L_align beside L_answer. The paper has 0.1, without whitening. With whitened targets 0.3 to 10 are
            equally right on shuffle (`benchmarks/controls.py --part ablations`).
        align_loss (`str`, *optional*, defaults to `"cosine_mse"`):
            `"cosine_mse"`, `"mse"` (the paper's), `"cosine"` or `"infonce"`, whose negatives are the targets of all rows of a
            step, over accumulated batches and processes.
        align_reduction (`str`, *optional*, defaults to `"mean"`):
            Reduction of the squared error over the hidden size: `"mean"` or `"sum"`. The paper does not say.
        forcing (`str`, *optional*, defaults to `"teacher"`):
            Input of each latent slot: `"teacher"`, its target, all in one pass; `"rollout"`, the model's own latent; `"scheduled"`,
            the model's own with a probability that rises from 0 to 1 over training. With `"rollout"` from a cold start the answer
            learns to ignore the latents.
        teacher_noise (`float`, *optional*, defaults to `0.0`):
            Standard deviation of Gaussian noise on the targets that teacher forcing feeds, beside their unit root mean
            square. Latents of the model's own are never exact; with noise it learns to answer from slots that are not.
        step_words_weight (`float`, *optional*, defaults to `0.0`):
            Weight of a loss that makes the language model's own head read the words of each step of a row's `chain_of_thought`
            from the state that its latent is made from, so that latents can be read as words
            ([`~storm_hf.evaluation.read_latent_words`]). It adds no weights. 0.1 is a beginning.
        target_pooling (`str`, *optional*, defaults to `"temporal"`):
            `"temporal"` gives each slot its stretch of the thought video, `"sequence"` averages over the flat token
            sequence (the paper's).
        target_layout (`str`, *optional*, defaults to `"average"`):
            Spatial layout of a slot: the `"average"` over space, or all cells, `"concat"`, where the layout is the
            state.
        target_normalize (`str`, *optional*, defaults to `"whiten"`):
            `"whiten"`, or for comparison `"layernorm"` or `"none"` (the paper's): raw pooled features are nearly the same
            for every video, so that alignment on them looks perfect and carries nothing.
        whitening_rank (`int`, *optional*):
            Number r of principal components that are kept: the smallest that a linear probe reads the state from. Left
            out, the trainer takes the targets that the data set's builder chose and saved, rank, pooling and layout included;
            where there are none, the rank is 16.
        whitening_statistics (`str`, *optional*, defaults to `"pooled"`):
            One mean for all slots, `"pooled"`, which also serves more steps than trained, or one mean `"per_slot"`.
        learning_rate (`float`, *optional*, defaults to `1e-05`):
            Initial learning rate, the paper's. A tiny model wants more.
    """

    align_weight: NonNegativeFloat = 3.0
    align_loss: AlignLoss = "cosine_mse"
    align_reduction: Reduction = "mean"
    forcing: Forcing = "teacher"
    teacher_noise: NonNegativeFloat = 0.0
    step_words_weight: NonNegativeFloat = 0.0
    target_pooling: Pooling = "temporal"
    target_layout: Layout = "average"
    target_normalize: Normalization = "whiten"
    whitening_rank: PositiveInt | None = None
    whitening_statistics: SlotStatistics = "pooled"
    learning_rate: float = 1e-5

    def __post_init__(self) -> None:
        check_values(self, inspect.get_annotations(StormAlignConfig))
        if self.num_latents == 0:
            raise ConfigurationError(
                "`num_latents` must be 1 or more to align latents, got 0. Use StormAnswerConfig without."
            )
        if self.teacher_noise > 0 and self.forcing != "teacher":
            raise ConfigurationError(
                f"`teacher_noise` needs `forcing: teacher`, got {self.teacher_noise} with `forcing: {self.forcing}`."
            )
        if self.step_words_weight > 0 and self.jacobi_sweeps is not None:
            raise ConfigurationError(
                f"`step_words_weight` reads the states of a rollout, which `jacobi_sweeps: {self.jacobi_sweeps}` approximates. Leave "
                "one of the two out."
            )
        super().__post_init__()
        if self.rollout_gradient != RolloutGradient() and self.forcing != "rollout":
            raise ConfigurationError(
                "`detach_prompt`, `truncate_steps` and `jacobi_sweeps` are about a rollout, which Stage I has with `forcing: "
                f"rollout` only; got `forcing: {self.forcing}`. Leave them to Stage II."
            )
        args: Any = self  # the types of TRL's arguments are not known here
        rows = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        if self.align_loss == "infonce" and rows == 1:
            raise ConfigurationError(
                "`align_loss: infonce` distinguishes a target from those of other rows, but the batch of a step is one row. Set "
                "`per_device_train_batch_size` or `gradient_accumulation_steps` to 2 or more."
            )
