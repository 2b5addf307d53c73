"""Inputs of the model: rows of any form as prompts, with their clips decoded and their options worded."""

from typing import TYPE_CHECKING

from storm_hf.optional import first_use


if TYPE_CHECKING:
    from storm_hf.inputs.collator import AnswerCollator
    from storm_hf.inputs.features import cache_video_features
    from storm_hf.inputs.media import load_clip
    from storm_hf.inputs.prompts import PromptEncoder
    from storm_hf.inputs.wording import format_answer, format_question

_MODULE_OF = {
    "AnswerCollator": "storm_hf.inputs.collator",
    "PromptEncoder": "storm_hf.inputs.prompts",
    "cache_video_features": "storm_hf.inputs.features",
    "format_answer": "storm_hf.inputs.wording",
    "format_question": "storm_hf.inputs.wording",
    "load_clip": "storm_hf.inputs.media",
}

__all__ = [
    "AnswerCollator",
    "PromptEncoder",
    "cache_video_features",
    "format_answer",
    "format_question",
    "load_clip",
]


__getattr__ = first_use(__name__, _MODULE_OF)
