"""What a run starts from: a model, plain or already a STORM, with its processor, and rows whose videos can be found."""

from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, Value, load_dataset
from transformers import AutoConfig, AutoProcessor, ProcessorMixin

from storm_hf.model import StormForConditionalGeneration, add_latent_tokens, storm_processor


VIDEO_COLUMNS = ("video", "thought_video")


def load_storm(
    name_or_path: str, num_latents: int | None = None, *, revision: str = "main", **kwargs: Any
) -> tuple[StormForConditionalGeneration, ProcessorMixin]:
    """Load a STORM, or make one of a plain video-language checkpoint, with the processor that belongs to it.

    Args:
        name_or_path (`str`):
            A checkpoint on the Hub or in a folder.
        num_latents (`int`, *optional*):
            Number K of latent steps, which model and processor then agree on. By default the checkpoint's own, and 8 for a
            plain one.
        revision (`str`, *optional*, defaults to `"main"`):
            Revision on the Hub.
        kwargs:
            Passed to `from_pretrained`: `dtype`, `attn_implementation`, ...

    Returns:
        `tuple`: The model and its processor.

    Raises:
        BackboneError: If the checkpoint is not a video-language model.
    """
    config = AutoConfig.from_pretrained(name_or_path, revision=revision)
    if config.model_type != "storm":
        chosen = 8 if num_latents is None else num_latents
        processor = storm_processor(name_or_path, chosen, revision=revision)
        model = StormForConditionalGeneration.from_backbone(
            name_or_path, chosen, processor=processor, revision=revision, **kwargs
        )
        return model, processor
    processor = AutoProcessor.from_pretrained(name_or_path, revision=revision)
    if num_latents is not None:
        config = type(config)(**{**config.to_dict(), "num_latents": num_latents})
        add_latent_tokens(processor, num_latents)
    model = StormForConditionalGeneration.from_pretrained(name_or_path, config=config, revision=revision, **kwargs)
    return model, processor


def load_rows(name_or_path: str, config: str | None = None) -> DatasetDict:
    """Load a data set, on the Hub or in a folder, whose paths of videos can be opened from anywhere.

    Args:
        name_or_path (`str`):
            What [`~datasets.load_dataset`] takes. In a folder, paths of videos are relative to it, so that it can be moved.
        config (`str`, *optional*):
            Name of a configuration, such as `"videos"`.

    Returns:
        [`~datasets.DatasetDict`]: One data set per split.
    """
    splits = load_dataset(name_or_path, name=config)
    folder = Path(name_or_path)
    if folder.is_dir():
        for name, rows in splits.items():
            splits[name] = _with_absolute_paths(rows, folder.resolve())
    return splits


def _with_absolute_paths(rows: Dataset, folder: Path) -> Dataset:
    text = Value("string")
    for name in VIDEO_COLUMNS:
        if rows.features.get(name) == text:
            paths = [str(folder / path) if path else path for path in rows[name]]
            rows = rows.remove_columns(name).add_column(name, paths, feature=text)
    return rows
