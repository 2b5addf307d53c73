"""Single questions about one clip of any kind, asked again with the latents replaced.

Axes: B batch, K latent steps, D hidden size.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import ProcessorMixin

from storm_hf.errors import LatentError, PromptError
from storm_hf.evaluation.batch import Answer, answer_questions
from storm_hf.inputs.media import load_clip
from storm_hf.inputs.prompts import PromptEncoder, Row, as_prompt_error
from storm_hf.interventions.intervention import make_intervention
from storm_hf.interventions.kind import OF_ONE_QUESTION, InterventionKind, read_kind
from storm_hf.model.modeling_storm import StormForConditionalGeneration
from storm_hf.model.processing_storm import MAX_FRAMES as MAX_FRAMES
from storm_hf.video import VideoClip


MAX_NEW_TOKENS = 64
_ALWAYS_READ = 8192  # tokens that fit into memory whatever the model; longer prompts need a model made for them

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ClipQuestion:
    """A question about a clip.

    Args:
        clip ([`~storm_hf.video.VideoClip`]):
            Video clip of the question.
        text (`str`):
            The question, in any language and of any length that the model reads.
        options (`Sequence[str]`, *optional*):
            The closed set of answers; without it the question is open.
    """

    clip: VideoClip
    text: str
    options: Sequence[str] = ()

    def row(self) -> Row:
        """The question as a row of a data set.

        Raises:
            PromptError: If the clip is not one that was read, or the options are one text.
        """
        if not isinstance(self.clip, VideoClip):
            raise PromptError(
                f"Expected a clip that was read, got {type(self.clip).__name__}. `read_clip(path, processor)` reads a file."
            )
        if isinstance(self.options, str):
            raise PromptError(
                f"Expected options as a list of texts, got the text {self.options!r}. Give at least two."
            )
        return {"video": self.clip, "question": self.text, "options": list(self.options) or None}


def read_clip(path: str | Path, processor: ProcessorMixin) -> VideoClip:
    """Read a clip of any length as the processor samples it, damaged or not.

    Args:
        path (`str` or `Path`):
            The file.
        processor ([`~transformers.ProcessorMixin`]):
            Says how frames are sampled, as in training; see `load_clip`.

    Raises:
        VideoReadError: If no frame can be decoded.
    """
    return load_clip(str(path), processor, strict=False)


def ask(
    model: StormForConditionalGeneration,
    processor: ProcessorMixin,
    question: ClipQuestion,
    *,
    num_latents: int | None = None,
    halting: bool | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> Answer:
    """Answer a question about a clip, greedily.

    Args:
        model ([`StormForConditionalGeneration`]):
            The model.
        processor ([`~transformers.ProcessorMixin`]):
            Its processor.
        question ([`ClipQuestion`]):
            Question to ask.
        num_latents (`int`, *optional*):
            Number K of latent steps, by default the model's; `0` answers without thinking.
        halting (`bool`, *optional*):
            Whether the thought ends when the model's halting head says so. By default it does where there is one, unless another
            `num_latents` than the model's is asked for.
        max_new_tokens (`int`, *optional*, defaults to `64`):
            Longest answer.

    Raises:
        PromptError: If clip and question do not fit the model.
        LatentError: If the model cannot think for so many steps.
    """
    prompts = question_encoder(model, processor, num_latents)
    row = question.row()
    return answer_questions(model, prompts, [row], max_new_tokens=max_new_tokens, halting=halting)[0]


def ask_with_replaced_latents(
    model: StormForConditionalGeneration,
    processor: ProcessorMixin,
    question: ClipQuestion,
    own: Answer,
    kind: InterventionKind | str,
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> Answer:
    """Ask again under an intervention on the latents.

    Args:
        model ([`StormForConditionalGeneration`]):
            The model.
        processor ([`~transformers.ProcessorMixin`]):
            Its processor.
        question ([`ClipQuestion`]):
            Question that was asked.
        own ([`Answer`]):
            Result of `ask`: its latents are replaced.
        kind (`str`):
            `"zero"`, `"noise_per_question"`, `"mean_over_steps"`, `"no_latents"` or `"latents_only"`; see
            [`~storm_hf.interventions.kind.InterventionKind`].
        max_new_tokens (`int`, *optional*, defaults to `64`):
            Longest answer.

    Raises:
        ConfigurationError: If there is no such intervention on a single question.
        LatentError: If that answer was given without latents.
    """
    latents = latents_to_replace(own)
    intervention = make_intervention(read_kind(kind, OF_ONE_QUESTION), latents[None])
    prompts = question_encoder(model, processor, len(latents))
    return answer_questions(model, prompts, [question.row()], max_new_tokens=max_new_tokens, intervene=intervention)[0]


def latents_to_replace(own: Answer) -> np.ndarray:
    """The latents (K, D) of an answer.

    Raises:
        LatentError: If it was given without any.
    """
    if own.latents is None:
        raise LatentError(
            "There are no latents to replace: this answer was given without any. Ask a model that thinks, with a "
            "`num_latents` above 0."
        )
    return own.latents


def question_encoder(
    model: StormForConditionalGeneration, processor: ProcessorMixin, num_latents: int | None
) -> PromptEncoder:
    """Make the encoder of unchecked questions, with the model's own K if none is given."""
    return _GuardedPrompts(processor, model.config, model.config.num_latents if num_latents is None else num_latents)


class _GuardedPrompts(PromptEncoder):
    """Encoder of unchecked prompts: raises what does not fit instead of failing in the middle."""

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        height, width = rows[0]["video"].frames.shape[1:3]
        with as_prompt_error(f"The model cannot look at a clip of {width} x {height} pixels"):
            inputs = super().__call__(rows)
        self._check_length(inputs["input_ids"].shape[1])
        return inputs

    def _check_length(self, num_tokens: int) -> None:
        window = getattr(self.config.get_text_config(), "max_position_embeddings", None) or num_tokens
        if num_tokens > max(window, _ALWAYS_READ):
            raise PromptError(
                f"Clip and question make {num_tokens} tokens, but this model reads {window}. Ask a shorter question."
            )
        if num_tokens > window:
            logger.warning(
                "Clip and question make %d tokens, more than the %d that this model was made for: do not trust its answer.",
                num_tokens,
                window,
            )
