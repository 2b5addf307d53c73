"""Configuration of reinforcement on latents, on TRL's `GRPOConfig`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from trl import GRPOConfig

from storm_hf.errors import ConfigurationError
from storm_hf.inputs.wording import QuestionStyle
from storm_hf.reinforce.replay import Estimator
from storm_hf.reinforce.rewards import OF_DONORS, find_rewards
from storm_hf.settings import NonNegativeFloat, PositiveInt, check_folder, check_values, with_help
from storm_hf.training.config import ROUNDS_WEIGHTS
from storm_hf.video.library_backends import check_video_backend, video_backend


# Settings of GRPOConfig that cannot work here, each with the values that are taken, and why others are refused.
_REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "use_vllm": (
        (False,),
        "A roll-out feeds latents, which are embeddings, and its noise has to be replayed exactly.",
    ),
    "use_transformers_continuous_batching": (
        (False,),
        "Its paged cache takes token ids, and a roll-out feeds embeddings.",
    ),
    "sync_ref_model": (
        (False,),
        "The reference is the model that the run began with, so that it is the same when resumed.",
    ),
    "cast_lm_head_to_fp32": ((False,), "The head is the backbone's. Load the model with `dtype: float32`."),
    "use_liger_kernel": ((False,), "It replaces the forward pass that rolls out."),
    "chat_template_kwargs": ((None,), "Rows bring their own, in a column of this name."),
    "bf16_full_eval": ((False,), ROUNDS_WEIGHTS),
    "fp16_full_eval": ((False,), ROUNDS_WEIGHTS),
    "remove_unused_columns": ((False, None), "Rows are encoded, and rewards read all their columns."),
}
_CHECKED = (
    "estimator",
    "latent_noise",
    "donor_share",
    "rewards",
    "num_latents",
    "question_style",
    "overwrite_output_dir",
)


def num_donor_rollouts(donor_share: float, num_generations: int) -> int:
    """Return how many of a group's `num_generations` roll-outs are fed a donor's latents: at least one and not all, if any."""
    return min(max(round(donor_share * num_generations), 1), num_generations - 1) if donor_share else 0


@with_help
@dataclass
class StormGRPOConfig(GRPOConfig):
    r"""
    Configuration class for the [`StormGRPOTrainer`]. It adds to [`~trl.GRPOConfig`]:

    Parameters:
        estimator (`str`, *optional*, defaults to `"pathwise"`):
            Estimator of the gradient: `"pathwise"`, through the exact rollout with its noise replayed, or `"score"`, by the
            density of the latents, which are constants then. See [`storm_hf.reinforce.replay`].
        latent_noise (`float`, *optional*, defaults to `0.1`):
            Root mean square of the noise that is added to each latent of a roll-out, as a share of that of the latent. `0`
            leaves exploration to the sampling of answers.
        latent_subspace (`str`, *optional*):
            Folder with `whitening.safetensors`, of a Stage I checkpoint or a data set, in whose directions noise is drawn. By
            default that of the model, if it has one, else all directions. `score` has noise in all of them.
        rewards (`list[str]`, *optional*):
            Names of rewards, of `correct_answer`, `answer_format`, `latent_price`, `latent_use` and `donor_answer`. By default
            `correct_answer`, unless the trainer is given `reward_funcs`.
        donor_share (`float`, *optional*, defaults to `0.0`):
            Share of each group whose roll-outs are fed the latents of another clip with another answer, for `latent_use` and
            `donor_answer`. At least one roll-out of a group, and not all.
        num_latents (`int`, *optional*):
            Number K of latent steps. By default the model's own.
        question_style (`str`, *optional*):
            Style of a row's options in the question: `"words"`, `"letters"` or `"none"`. By default the model's own.
        disable_dropout (`bool`, *optional*, defaults to `True`):
            Whether dropout is off, so that a likelihood ratio compares weights and not masks.
        max_completion_length (`int`, *optional*, defaults to `32`):
            Longest answer in tokens, without its latents.
        resume_from_checkpoint (`str`, *optional*, defaults to `"true"`):
            Checkpoint that the scripts go on from; see [`StormTrainingConfig`].
        overwrite_output_dir (`bool`, *optional*, defaults to `False`):
            Whether a run may begin anew in an `output_dir` that holds checkpoints of an earlier one.
        video_backend (`str`, *optional*):
            Decoder of the clips: `pyav`, `decord` or `torchcodec`; see [`StormTrainingConfig`].

    The vision tower is frozen, and a clip is encoded once for its group.
    """

    estimator: Estimator = "pathwise"
    latent_noise: NonNegativeFloat = 0.1
    latent_subspace: str | None = None
    rewards: list[str] | None = None
    donor_share: NonNegativeFloat = 0.0
    num_latents: PositiveInt | None = None
    question_style: QuestionStyle | None = None
    disable_dropout: bool = True
    max_completion_length: int | None = 32
    resume_from_checkpoint: str | None = "true"
    overwrite_output_dir: bool = False
    video_backend: str | None = None

    def __post_init__(self) -> None:
        self._check_ranges()
        self._refuse_what_cannot_work()
        given: Any = self  # the types of TRL's arguments are not known here
        if given.bf16 is None:
            given.bf16 = not given.fp16 and torch.cuda.is_available()
        if given.activation_checkpointing is None:  # TRL's default still has the deprecated name
            given.activation_checkpointing = given.gradient_checkpointing
        super().__post_init__()
        # Reentrant checkpointing silently loses the gradient through the captured keys and values of the rollout.
        exact = {**(given.activation_checkpointing_kwargs or {}), "use_reentrant": False}
        given.activation_checkpointing_kwargs = given.gradient_checkpointing_kwargs = exact
        self._check_donors()

    @property
    def freeze_vision(self) -> bool:
        """True: the features of a clip are the same for all roll-outs and all steps on them."""
        return True

    @property
    def num_donor_rollouts(self) -> int:
        """Number of roll-outs of a group that are fed a donor's latents."""
        return num_donor_rollouts(self.donor_share, int(self.num_generations))

    @property
    def reward_names(self) -> Sequence[str]:
        """Names of the rewards, where no functions are given."""
        return self.rewards or ["correct_answer"]

    def _check_ranges(self) -> None:
        check_values(self, _CHECKED)
        if self.output_dir is not None:
            check_folder(self.output_dir)
        check_video_backend(self.video_backend or video_backend())
        find_rewards(self.reward_names)
        if self.estimator == "score" and self.latent_noise == 0:
            raise ConfigurationError(
                "`estimator: score` needs `latent_noise` above 0, got 0: without noise a group has one trajectory, and its density "
                "has no gradient. Set some noise, or take `estimator: pathwise`."
            )
        if self.estimator == "score" and self.latent_subspace is not None:
            raise ConfigurationError(
                "`latent_subspace` goes with `estimator: pathwise`: the density of latents in a subspace has a gradient that lacks what "
                "moves out of it. Leave it out; `score` draws noise in all directions."
            )
        if self.estimator == "score" and self.top_entropy_quantile < 1:
            raise ConfigurationError(
                f"`top_entropy_quantile: {self.top_entropy_quantile}` chooses tokens by their entropy, which latents do not have. "
                "Leave it out, or take `estimator: pathwise`."
            )

    def _refuse_what_cannot_work(self) -> None:
        for name, (values, reason) in _REFUSED.items():
            if (value := getattr(self, name)) not in values:
                raise ConfigurationError(f"`{name}: {value}` is not supported. {reason} Leave it out.")

    def _check_donors(self) -> None:
        """Check that rewards of donors have some, and that a process sees clips of two questions at once."""
        if self.donor_share > 1:
            raise ConfigurationError(f"`donor_share` must lie between 0 and 1, got {self.donor_share}.")
        if (named := [name for name in self.reward_names if name in OF_DONORS]) and not self.donor_share:
            raise ConfigurationError(
                f"The reward `{named[0]}` judges roll-outs that are fed the latents of another clip, but `donor_share` is 0. Set it "
                "to 0.5."
            )
        of_process = int(self.per_device_train_batch_size) * int(self.steps_per_generation)
        if self.donor_share and of_process < 2 * int(self.num_generations):
            raise ConfigurationError(
                f"`donor_share` needs roll-outs of two questions or more on each process, {2 * int(self.num_generations)} of them, "
                f"got {of_process}. Raise `steps_per_generation` or `per_device_train_batch_size`."
            )
