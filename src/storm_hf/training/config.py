"""What both stages' configurations share, on TRL's `SFTConfig`."""

from dataclasses import dataclass, field
from typing import Any

import torch
from trl import SFTConfig

from storm_hf.errors import ConfigurationError
from storm_hf.worlds.question import QuestionStyle


@dataclass
class StormTrainingConfig(SFTConfig):
    r"""
    Configuration that Stage I and Stage II share. It adds to [`~trl.SFTConfig`]:

    Parameters:
        num_latents (`int`, *optional*):
            Number K of latent steps. By default the model's own. `0` trains direct answers, without a latent block.
        question_style (`str`, *optional*, defaults to `"words"`):
            How a row's options are written into the question: `"words"`, `"letters"` or `"none"`.
        freeze_vision (`bool`, *optional*, defaults to `True`):
            Whether the vision tower and its merger stay as they are. Both stages of the paper freeze them: the targets are
            made by them.
        max_length (`int`, *optional*):
            Maximum length of a sequence in tokens. A cut would tear the tokens of a video apart, so there is none.
        remove_unused_columns (`bool`, *optional*, defaults to `False`):
            Whether to drop columns that `forward` does not name. The collator reads them.
    """

    num_latents: int | None = field(
        default=None,
        metadata={"help": "Number K of latent steps. By default the model's own; 0 trains direct answers."},
    )
    question_style: QuestionStyle = field(
        default="words",
        metadata={"help": "How options are written into the question: words, letters or none."},
    )
    freeze_vision: bool = field(
        default=True, metadata={"help": "Whether the vision tower and its merger stay as they are."}
    )
    max_length: int | None = field(
        default=None, metadata={"help": "Maximum length in tokens. A cut would tear a video apart, so there is none."}
    )
    remove_unused_columns: bool | None = field(
        default=False,
        metadata={"help": "Whether to drop columns that `forward` does not name. The collator reads them."},
    )

    def __post_init__(self) -> None:
        if self.num_latents is not None and self.num_latents < 0:
            raise ConfigurationError(f"`num_latents` must be 0 or more, got {self.num_latents}.")
        if self.question_style not in ("words", "letters", "none"):
            raise ConfigurationError(f"`question_style` must be words, letters or none, got {self.question_style!r}.")
        given: Any = self  # the types of TRL's arguments are not known here
        if given.bf16 is None:
            given.bf16 = not given.fp16 and torch.cuda.is_available()
        if given.activation_checkpointing is None:  # TRL's default still has the deprecated name
            given.activation_checkpointing = given.gradient_checkpointing
        super().__post_init__()
        given.dataset_kwargs = {"skip_prepare_dataset": True, **(given.dataset_kwargs or {})}
        # Reentrant checkpointing silently loses the gradient through the captured keys and values of the rollout.
        exact = {**(given.activation_checkpointing_kwargs or {}), "use_reentrant": False}
        given.activation_checkpointing_kwargs = given.gradient_checkpointing_kwargs = exact
