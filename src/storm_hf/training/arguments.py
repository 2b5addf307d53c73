"""Arguments of a trainer, checked before anything is loaded, and the prompt record that its run leaves."""

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeAlias

import numpy as np
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict
from peft import PeftModel
from transformers import (
    BitsAndBytesConfig,
    DataCollator,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    TrainingArguments,
    set_seed,
)

from storm_hf.errors import ConfigurationError, first_line
from storm_hf.inputs.conversation import is_filled
from storm_hf.inputs.prompts import PromptEncoder, Row
from storm_hf.model import StormConfig, storm_processor
from storm_hf.model.processing_storm import PromptRecord, find_misfit, frame_sampling, write_record
from storm_hf.training.loading import StormModelConfig, load_storm
from storm_hf.video.library_backends import use_video_backend


Rows: TypeAlias = Dataset | IterableDataset
EvaluationRows: TypeAlias = Rows | DatasetDict | IterableDatasetDict | dict[str, Rows]

_CHOICE_STYLE = "choice_style"  # of a question that is complete; see `AskedExample`
_OPTION_COLUMNS = {"options", _CHOICE_STYLE}
_CURES = {
    "quantization_config": "Load the model with `load_storm(StormModelConfig(name, load_in_4bit=True, use_peft=True))`, which "
    "quantizes the language model alone.",
    "formatting_func": "Map the rows to the columns `video`, `question` and `answer`, or to `prompt` and `completion`.",
}


def refuse_arguments(
    args: TrainingArguments,
    config_class: type[TrainingArguments],
    train_dataset: Rows | None = None,
    quantization_config: BitsAndBytesConfig | None = None,
    formatting_func: Callable[[dict], str] | None = None,
) -> None:
    """Check the configuration of a run, and refuse arguments of [`~trl.SFTTrainer`] that would do nothing.

    Args:
        args ([`~transformers.TrainingArguments`]):
            Configuration of the run.
        config_class (`type`):
            Its expected class.
        train_dataset ([`~datasets.Dataset`], *optional*):
            Rows that are trained on, which [`~trl.SFTTrainer`] needs.
        quantization_config ([`~transformers.BitsAndBytesConfig`], *optional*):
            Refused.
        formatting_func (`Callable`, *optional*):
            Refused.

    Raises:
        ConfigurationError: If one of these was given, if `args` is of another class, if several GPUs are used by one
            process, or if there are no rows of one split.
    """
    if not isinstance(args, config_class):
        raise ConfigurationError(
            f"Expected `args` to be a {config_class.__name__}, got {type(args).__name__}. It takes the same settings: "
            f"`{config_class.__name__}(output_dir=...)`."
        )
    for name, value in {"quantization_config": quantization_config, "formatting_func": formatting_func}.items():
        if value is not None:
            raise ConfigurationError(f"`{name}` is not used by the trainers of STORM. {_CURES[name]}")
    if args.n_gpu > 1:
        raise ConfigurationError(
            f"One process sees {args.n_gpu} GPUs, on which `Trainer` would use `nn.DataParallel`. Start the script with "
            "`accelerate launch`, or set CUDA_VISIBLE_DEVICES to one of them."
        )
    _check_rows(train_dataset)


def _check_rows(train_dataset: Rows | None) -> None:
    """Refuse what holds no rows of one split."""
    if train_dataset is None:
        raise ConfigurationError("Expected `train_dataset`, got none. `load_rows(name)` gives its splits.")
    if isinstance(train_dataset, Mapping):  # a `DatasetDict` is one
        raise ConfigurationError(
            f"Expected the rows of one split as `train_dataset`, got the splits {', '.join(train_dataset)}. Take one of them, such as "
            f"`dataset[{next(iter(train_dataset), 'train')!r}]`."
        )
    if not isinstance(train_dataset, Dataset | IterableDataset):
        raise ConfigurationError(
            f"Expected a `datasets.Dataset` as `train_dataset`, got a {type(train_dataset).__name__}. `load_rows(name)` gives the "
            "splits of a data set, `Dataset.from_list(rows)` makes one of rows."
        )
    if isinstance(train_dataset, Dataset) and len(train_dataset) == 0:
        raise ConfigurationError(
            "Expected rows to train on, got a `train_dataset` without any. Look at what filters it."
        )


def load_parts(
    model: str | PreTrainedModel | PeftModel,
    processing_class: PreTrainedTokenizerBase | ProcessorMixin | None,
    args: TrainingArguments,
    data_collator: DataCollator | None,
) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase | ProcessorMixin, TrainingArguments]:
    """Load what a trainer was given by name, the decoder of its videos included, and check what it was given.

    Args:
        model (`str`, [`StormForConditionalGeneration`] or [`~peft.PeftModel`]):
            A name is loaded as the scripts load it, with `args.model_init_kwargs` as fields of [`StormModelConfig`].
        processing_class ([`~transformers.ProcessorMixin`], *optional*):
            By default that of the model.
        args ([`~transformers.TrainingArguments`]):
            Configuration of the run.
        data_collator (`Callable`, *optional*):
            A collator of the user's own, which may do with a tokenizer.

    Returns:
        `tuple`: The model, its processor, and the configuration, without `model_init_kwargs` where they were used.

    Raises:
        ConfigurationError: If one of them is of another kind, or the processor is not to be found.
    """
    use_video_backend(args.video_backend)
    if isinstance(model, str):
        set_seed(args.seed)  # a plain checkpoint gets a new projector
        model, found = load_storm(_model_config(model, args.model_init_kwargs), args.num_latents)
        processing_class = found if processing_class is None else processing_class
        args = copy.copy(args)
        args.model_init_kwargs = None  # which TRL would warn of
    elif getattr(getattr(model, "config", None), "model_type", None) != StormConfig.model_type:
        raise ConfigurationError(
            f"Expected `model` to be a STORM or a checkpoint's name, got {type(model).__name__}. Make one with "
            "`StormForConditionalGeneration.from_backbone(name)`, or give the name."
        )
    if processing_class is None:
        processing_class = _processor_of(model.config)
    if data_collator is None and not isinstance(processing_class, ProcessorMixin):
        raise ConfigurationError(
            f"Expected `processing_class` to be a processor that reads videos, got {type(processing_class).__name__}. Give "
            "`storm_processor(name, num_latents)`, or leave it out."
        )
    return model, processing_class, args


def _model_config(name: str, options: dict[str, Any] | None) -> StormModelConfig:
    options = dict(options or {})
    if "revision" in options:
        options["model_revision"] = options.pop("revision")
    known = {field.name for field in fields(StormModelConfig)}
    if unknown := sorted(options.keys() - known):
        raise ConfigurationError(
            f"`model_init_kwargs` takes `revision` and the fields of StormModelConfig, such as `dtype`, got "
            f"{', '.join(unknown)}. Load the model with `from_backbone` or `from_pretrained` for others."
        )
    return StormModelConfig(**{**options, "model_name_or_path": name})


def _processor_of(config: PreTrainedConfig) -> ProcessorMixin:
    """Load the processor that belongs to a model by the name that it was loaded from."""
    name = config.name_or_path
    try:
        if not name:
            raise OSError("it was made without a name")
        return storm_processor(name, config.num_latents)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"Expected `processing_class`, since no processor was found for the model {name!r}: {first_line(error)}. Give "
            "`storm_processor(name, num_latents)` with the name of its backbone."
        ) from error


logger = logging.getLogger(__name__)


def record_prompts(
    prompts: PromptEncoder, rows: Rows | Sequence[Row], config: PreTrainedConfig | None = None
) -> PromptRecord:
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


def question_forms(rows: Rows | Sequence[Row], style: str) -> tuple[str, ...]:
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
    if not _OPTION_COLUMNS & set(names) or (style == "none" and _CHOICE_STYLE not in names):
        return ("open",)
    has_options = _has_options(rows, style)
    forms = {"options": has_options.any(), "open": (~has_options).any()}
    return tuple(form for form, is_there in forms.items() if is_there)


def _column_names(rows: Rows | Sequence[Row]) -> Sequence[str]:
    if isinstance(rows, Dataset):
        return rows.column_names
    return sorted({name for row in rows for name in row}) if isinstance(rows, list) else ()


def _has_options(rows: Rows | Sequence[Row], style: str) -> np.ndarray:
    """Mark the rows whose question names its options: those that have some, or a question that is complete with them."""
    if isinstance(rows, Dataset):
        names = sorted(_OPTION_COLUMNS & set(rows.column_names))
        batches = rows.select_columns(names).with_format(None).iter(10_000)
        rows = [
            dict(zip(batch, values, strict=True)) for batch in batches for values in zip(*batch.values(), strict=True)
        ]
    return np.array([_names_options(row, style) for row in rows], dtype=bool)


def _names_options(row: Row, style: str) -> bool:
    if style != "none" and is_filled(row, "options") and len(row["options"]) > 0:
        return True
    return is_filled(row, _CHOICE_STYLE) and row[_CHOICE_STYLE] != "none"
