"""The prompt record of a training run: read off its prompts and its rows, written into model and processor."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedConfig

from storm_hf.errors import ConfigurationError
from storm_hf.model.processing_storm import find_misfit, write_record
from storm_hf.model.prompt_storm import PromptRecord, frame_sampling
from storm_hf.training.conversation import is_filled
from storm_hf.training.prompts import PromptEncoder


logger = logging.getLogger(__name__)


def record_prompts(prompts: PromptEncoder, rows: Any, config: PreTrainedConfig | None = None) -> PromptRecord:
    """Write the form of a run's prompts into the model's configuration and the processor, and return it.

    A chat template that lost its latent block (as TRL's `chat_template_path` replaces it) gets it back.

    Args:
        prompts ([`PromptEncoder`]):
            Encodes the prompts of the run. With `num_latents=0`, for direct answers, the model's own K stays, and the
            processor as it is.
        rows ([`~datasets.Dataset`]):
            The rows that are trained on.
        config ([`StormConfig`], *optional*):
            Configuration of the model that is trained. By default that of the prompts.

    Raises:
        ConfigurationError: If the processor cannot write the prompts of the model.
    """
    config = config or prompts.config
    known = config.prompt_record
    if config.storm_prompt is not None and known.question_style != prompts.question_style:
        logger.warning(
            "The model was trained with question_style %r and goes on with %r.",
            *(known.question_style, prompts.question_style),
        )
    record = PromptRecord(
        num_latents=prompts.num_latents or config.num_latents,
        question_style=prompts.style,
        question_forms=question_forms(rows, prompts.style),
        thinking=known.thinking,
        has_latents=prompts.num_latents > 0 or (config.storm_prompt is not None and known.has_latents),
        **frame_sampling(prompts.processor.video_processor),
    )
    if prompts.num_latents:
        write_record(record, config, prompts.processor)
        if misfit := find_misfit(prompts.processor, config):
            raise ConfigurationError(misfit)
    else:
        config.storm_prompt = record.to_dict()
    return record


def question_forms(rows: Any, style: str) -> tuple[str, ...]:
    """Tell whether the questions of some rows name their options, of `"options"` and `"open"`; empty where it is unknown.

    Args:
        rows ([`~datasets.Dataset`]):
            Rows. What is streamed, or has prompts of its own, does not say.
        style (`str`):
            Form of the options in a question; with `"none"` every question is open.
    """
    names = _column_names(rows)
    if "question" not in names or {"prompt", "messages"} & set(names):
        return ()
    if style == "none" or "options" not in names:
        return ("open",)
    has_options = _has_options(rows)
    forms = {"options": has_options.any(), "open": (~has_options).any()}
    return tuple(form for form, is_there in forms.items() if is_there)


def _column_names(rows: Any) -> Sequence[str]:
    if isinstance(rows, Dataset):
        return rows.column_names
    return sorted({name for row in rows for name in row}) if isinstance(rows, list) else ()


def _has_options(rows: Any) -> np.ndarray:
    """Mark the rows that have options."""
    if isinstance(rows, Dataset):
        batches = rows.select_columns(["options"]).with_format(None).iter(10_000)
        rows = [{"options": options} for batch in batches for options in batch["options"]]
    return np.array([is_filled(row, "options") and len(row["options"]) > 0 for row in rows], dtype=bool)
