"""The prompt record of a training run: read off its prompts and its rows, written into model and processor."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from storm_hf.errors import ConfigurationError
from storm_hf.model.processing_storm import find_misfit, write_record
from storm_hf.model.prompt_storm import PromptRecord, frame_sampling
from storm_hf.training.prompts import PromptEncoder


def check_prompts(prompts: PromptEncoder) -> None:
    """Refuse a processor that cannot write the prompts of a run, before the first step.

    Args:
        prompts ([`PromptEncoder`]):
            Encodes the prompts of the run.

    Raises:
        ConfigurationError: If its latent ids are not the model's, or its template writes no latent block.
    """
    if prompts.num_latents and (misfit := find_misfit(prompts.processor, prompts.config)):
        raise ConfigurationError(misfit)


def record_prompts(prompts: PromptEncoder, rows: Any) -> PromptRecord:
    """Write how a run asks into the model's configuration and the processor, and return it.

    A chat template that lost its latent block (as TRL's `chat_template_path` replaces it) gets it back.

    Args:
        prompts ([`PromptEncoder`]):
            Encodes the prompts of the run. With `num_latents=0`, direct answers, the model's own K stays.
        rows ([`~datasets.Dataset`]):
            The rows that are trained on.
    """
    config = prompts.config
    record = PromptRecord(
        num_latents=prompts.num_latents or config.num_latents,
        question_style=prompts.style,
        question_forms=question_forms(rows, prompts.style),
        thinking=config.prompt_record.thinking,
        **frame_sampling(prompts.processor.video_processor),
    )
    if prompts.num_latents:
        write_record(record, config, prompts.processor)
    else:
        config.storm_prompt = record.to_dict()
    return record


def question_forms(rows: Any, style: str) -> tuple[str, ...]:
    """Tell whether the questions of some rows name their options, of `"options"` and `"open"`; empty where nobody knows.

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
    """Whether each row has options."""
    if isinstance(rows, Dataset):
        batches = rows.select_columns(["options"]).with_format(None).iter(10_000)
        each = [options for batch in batches for options in batch["options"]]
    else:
        each = [row.get("options") for row in rows]
    return np.array([options is not None and len(options) > 0 for options in each], dtype=bool)
