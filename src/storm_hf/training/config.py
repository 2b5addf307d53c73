"""Shared configuration of both stages, on TRL's `SFTConfig`."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers.trainer_utils import HubStrategy
from trl import SFTConfig

from storm_hf.errors import ConfigurationError
from storm_hf.inputs.wording import QuestionStyle
from storm_hf.model.rollout_storm import RolloutGradient
from storm_hf.settings import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    check_folder,
    check_values,
    with_help,
)
from storm_hf.training.device import workers_to_spare
from storm_hf.video.library_backends import check_video_backend, video_backend


ROUNDS_WEIGHTS = "An evaluation outside of training would round the weights themselves, which are then trained on or saved. Set `bf16` or `fp16`."
# Settings of SFTConfig that prepare texts, or harm the weights, each with the values that are taken, and why others are refused.
_WITHOUT_EFFECT: dict[str, tuple[tuple[Any, ...], str]] = {
    "max_length": (
        (None,),
        "A cut would tear the tokens of a video apart; set the frames and pixels of the processor.",
    ),
    "truncation_mode": (("keep_start",), "Sequences are never cut."),
    "completion_only_loss": ((None, True), "The loss is that of the answers alone."),
    "assistant_only_loss": ((False,), "The loss is that of the answers alone."),
    "pad_to_multiple_of": ((None, "auto"), "Batches are padded to their longest row."),
    "dataset_text_field": (("text",), "Rows have `video`, `question` and `answer`, or `prompt` and `completion`."),
    "dataset_num_proc": ((None,), "Rows are encoded while training; set `dataloader_num_workers`."),
    "shuffle_dataset": (
        (False,),
        "Rows are shuffled by the sampler, unless `train_sampling_strategy` is `sequential`.",
    ),
    "packing": ((False,), "Every row has a latent block at the same columns of the batch."),
    "packing_strategy": (("bfd",), "Rows are not packed."),
    "eval_packing": ((None, False), "Rows are not packed."),
    "padding_free": ((False,), "Every row has a latent block at the same columns of the batch."),
    "bf16_full_eval": ((False,), ROUNDS_WEIGHTS),
    "fp16_full_eval": ((False,), ROUNDS_WEIGHTS),
}
# Settings that are checked against their annotations; the others have checks of their own, or are those of `Trainer`.
_CHECKED = (
    "num_latents",
    "min_num_latents",
    "question_style",
    "bottleneck_share",
    "freeze_vision",
    "projector_learning_rate",
    "vision_learning_rate",
    "detach_prompt",
    "truncate_steps",
    "jacobi_sweeps",
    "keep_language",
    "language_weight",
    "language_batch_size",
    "overwrite_output_dir",
    "peak_flops_per_second",
)

_WITH_OPTIMIZER = (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS)


@with_help
@dataclass
class StormTrainingConfig(SFTConfig):
    r"""
    Configuration that Stage I and Stage II share. It adds to [`~trl.SFTConfig`]:

    Parameters:
        num_latents (`int`, *optional*):
            Number K of latent steps, by default the model's own. `0` trains direct answers, without a latent block.
        min_num_latents (`int`, *optional*):
            Fewest latent steps of a training step: K is drawn anew for each, evenly from here to `num_latents`, so that the model
            answers after any number of them. Stage I aligns them with the first K targets. By default every step has
            `num_latents`.
        question_style (`str`, *optional*):
            Style of a row's options in the question: `"words"`, `"letters"` or `"none"`. By default the model's own,
            `"words"` for a new one.
        bottleneck_share (`float`, *optional*, defaults to `0.0`):
            Share of rows, drawn anew at each step, whose answer learns of the clip through the content of the latents alone.
            Where a clip answers the question directly, nothing else makes the answer use them; see
            [`StormForConditionalGeneration.forward`].
        freeze_vision (`bool`, *optional*, defaults to `True`):
            Whether the vision tower and its merger stay as they are. Both stages of the paper freeze them: the targets are
            made by them.
        projector_learning_rate (`float`, *optional*):
            Learning rate of the latent projector, which Stage I trains from nothing. By default `learning_rate`.
        vision_learning_rate (`float`, *optional*):
            Learning rate of the vision tower and its merger with `freeze_vision: false`. By default `learning_rate`; a tower that
            starts from nothing beside a pretrained language model needs about ten times as much.
        detach_prompt (`bool`, *optional*, defaults to `False`):
            Whether the gradient through the rollout ends at the prompt. Saves the prompt's activations; the answer no longer
            teaches how the video is read. See [`RolloutGradient`]; the error is measured and logged once.
        truncate_steps (`int`, *optional*):
            Last latent steps that the gradient goes back through. Memory of so many steps; what came before, the prompt
            included, is not taught. By default all steps, exactly.
        jacobi_sweeps (`int`, *optional*):
            Parallel sweeps that find the latents, instead of K steps. Fewer passes one after the other, and exact from K - 1
            sweeps on; fewer approximate the latents in training, while inference still takes its K steps.
        keep_language (`float`, *optional*, defaults to `0.0`):
            Weight of KL(before || now) per token of the rows of `language_dataset`, which are plain text: how far the model has
            moved from what it predicted before the run. See [`~storm_hf.record_language`].
        language_weight (`float`, *optional*, defaults to `0.0`):
            Weight of the cross entropy of the rows of `language_dataset`, on their completions.
        language_batch_size (`int`, *optional*, defaults to `8`):
            Number of rows of `language_dataset` beside each micro-batch of a device. They are read in a forward pass of their own, without
            latents.
        language_dataset_name (`str`, *optional*):
            Name of these plain rows, unless a trainer gets them as `language_dataset`: a folder or a name on the Hub with a split
            `train`, a `.json`, `.jsonl` or `.parquet` file, or a `.txt` file, of which every paragraph is a row.
        max_length (`int`, *optional*):
            Refused, as are all settings of [`~trl.SFTConfig`] that prepare texts: a cut would tear the tokens of a video apart.
        resume_from_checkpoint (`str`, *optional*, defaults to `"true"`):
            Checkpoint that the scripts go on from: a folder, `"true"` for the newest complete one in `output_dir`, if there is one,
            or `"false"` to begin anew.
        overwrite_output_dir (`bool`, *optional*, defaults to `False`):
            Whether a run may begin anew in an `output_dir` that holds checkpoints of an earlier one.
        remove_unused_columns (`bool`, *optional*, defaults to `False`):
            Whether to drop columns that `forward` does not name. The collator reads them.
        dataloader_num_workers (`int`, *optional*):
            Processes that read videos while the model trains, for each process that trains. By default up to 8, as many as
            there are cores to spare, where there is a GPU; none on a CPU.
        dataloader_persistent_workers (`bool`, *optional*):
            Whether these processes live on from epoch to epoch. By default they do, where there are any.
        video_backend (`str`, *optional*):
            Decoder of the clips: `pyav`, `decord` or `torchcodec`. By default that of `STORM_VIDEO_BACKEND`, else PyAV. It holds for
            the whole process, and for those that read videos.
        peak_flops_per_second (`float`, *optional*):
            Dense FLOPs per second of one device in the arithmetic of the run, for `model_flops_utilisation`. By default that
            of a known GPU in 16 bits; of any other device no utilisation is logged.
    """

    num_latents: NonNegativeInt | None = None
    min_num_latents: PositiveInt | None = None
    question_style: QuestionStyle | None = None
    bottleneck_share: float = 0.0
    freeze_vision: bool = True
    projector_learning_rate: PositiveFloat | None = None
    vision_learning_rate: PositiveFloat | None = None
    detach_prompt: bool = False
    truncate_steps: int | None = None
    jacobi_sweeps: int | None = None
    keep_language: NonNegativeFloat = 0.0
    language_weight: NonNegativeFloat = 0.0
    language_batch_size: PositiveInt = 8
    language_dataset_name: str | None = None
    max_length: int | None = None
    resume_from_checkpoint: str | None = "true"
    overwrite_output_dir: bool = False
    remove_unused_columns: bool | None = False
    dataloader_num_workers: int | None = None
    dataloader_persistent_workers: bool | None = None
    video_backend: str | None = None
    peak_flops_per_second: PositiveFloat | None = None

    def __post_init__(self) -> None:
        self._check_ranges()
        self._refuse_settings_without_effect()
        given: Any = self  # the types of TRL's arguments are not known here
        if given.dataloader_num_workers is None:
            given.dataloader_num_workers = 0 if given.use_cpu else workers_to_spare()
        if given.dataloader_persistent_workers is None:
            given.dataloader_persistent_workers = given.dataloader_num_workers > 0
        if given.bf16 is None:
            given.bf16 = not given.fp16 and torch.cuda.is_available()
        if given.activation_checkpointing is None:  # TRL's default still has the deprecated name
            given.activation_checkpointing = given.gradient_checkpointing
        super().__post_init__()
        given.dataset_kwargs = {"skip_prepare_dataset": True, **(given.dataset_kwargs or {})}
        if given.activation_offloading and given.device.type == "cpu":
            raise ConfigurationError("`activation_offloading: true` needs an accelerator, got a CPU. Leave it out.")
        if not given.dataset_kwargs["skip_prepare_dataset"]:
            raise ConfigurationError(
                "`dataset_kwargs: {skip_prepare_dataset: false}` is not supported: the collator encodes rows. Leave it out."
            )
        # Reentrant checkpointing silently loses the gradient through the captured keys and values of the rollout.
        exact = {**(given.activation_checkpointing_kwargs or {}), "use_reentrant": False}
        given.activation_checkpointing_kwargs = given.gradient_checkpointing_kwargs = exact

    def _check_ranges(self) -> None:
        check_values(self, _CHECKED)
        if self.output_dir is not None:
            check_folder(self.output_dir)
        self._check_hub_strategy()
        check_video_backend(self.video_backend or video_backend())
        if not 0 <= self.bottleneck_share <= 1 or (self.bottleneck_share and self.num_latents == 0):
            raise ConfigurationError(
                f"`bottleneck_share` must lie between 0 and 1, and needs latents; got {self.bottleneck_share} with "
                f"`num_latents: {self.num_latents}`."
            )
        if self.rollout_gradient.detach_prompt and not self.freeze_vision:
            raise ConfigurationError(
                "`detach_prompt` leaves the vision tower without a gradient, but `freeze_vision` is False. Set one of the two "
                "otherwise."
            )

    def _check_hub_strategy(self) -> None:
        given: Any = self  # a word or a member of the enumeration
        if given.push_to_hub and HubStrategy(given.hub_strategy) in _WITH_OPTIMIZER:
            raise ConfigurationError(
                f"`hub_strategy: {HubStrategy(given.hub_strategy).value}` would publish states of the optimizer, which are pickles, "
                "and no push does. Take `every_save`: each save is a commit of its own."
            )

    def _refuse_settings_without_effect(self) -> None:
        for name, (values, reason) in _WITHOUT_EFFECT.items():
            if (value := getattr(self, name)) not in values:
                raise ConfigurationError(f"`{name}: {value}` is not supported. {reason} Leave it out.")

    @property
    def rollout_gradient(self) -> RolloutGradient:
        """The part of the rollout that the gradient goes back through."""
        return RolloutGradient(self.detach_prompt, self.truncate_steps, self.jacobi_sweeps)
