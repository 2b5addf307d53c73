"""Cached video features: clips encoded once, where the vision tower is frozen, as columns of the data set.

A batch then carries flat tensors instead of pixels (`storm_hf.model.video_features_storm`), and a training step costs what the language
model costs.
"""

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Array2D, Array3D, Dataset, Features, List, Value
from transformers import ProcessorMixin

from storm_hf.errors import BackboneError, DatasetError
from storm_hf.inputs.prompts import CACHED_PROMPT, CACHED_STYLE, COLUMNS_OF_A_PROMPT, PromptEncoder, encode_rows
from storm_hf.inputs.wording import QuestionStyle
from storm_hf.model.modeling_storm import StormForConditionalGeneration
from storm_hf.model.video_features_storm import to_float16


def cache_video_features(
    dataset: Dataset,
    model: StormForConditionalGeneration,
    processor: ProcessorMixin,
    *,
    question_style: QuestionStyle | None = None,
    batch_size: int = 64,
) -> Dataset:
    """Add the encoded prompt and the video features of every row, so that training never decodes or encodes again.

    Args:
        dataset ([`~datasets.Dataset`]):
            Rows of any form with one video or more each; see [`PromptEncoder`].
        model ([`StormForConditionalGeneration`]):
            Its vision tower encodes; it must stay frozen afterwards.
        processor ([`~transformers.ProcessorMixin`]):
            The processor with latent tokens.
        question_style (`str`, *optional*):
            Form of the options, kept with the prompts and compared with the run's. By default the one that the model was
            trained on.
        batch_size (`int`, *optional*, defaults to `64`):
            Clips that are encoded together.

    Returns:
        [`~datasets.Dataset`]: The same rows with `prompt_input_ids`, `prompt_mm_token_type_ids`, `prompt_clip_token_mask`, `video_features` of shape
        `(num_tokens, hidden_size)` in float16, `video_grid_thw`, and what else the backbone needs.

    Raises:
        BackboneError: If the backbone has no video grids, or its features are not finite in float16.
    """
    own = {} if question_style is None else {"question_style": question_style}
    encoder = PromptEncoder(processor, model.config, num_latents=0, **own)
    model.eval()

    def encode(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return _encode_rows(rows, encoder, model)

    read = [name for name in COLUMNS_OF_A_PROMPT if name in dataset.column_names]
    features = _cached_columns(model, encode(dataset.select_columns(read)[:1]))
    cached = dataset.select_columns(read).map(
        encode,
        batched=True,
        batch_size=batch_size,
        remove_columns=read,
        features=features,
        desc="Encoding question clips",
    )
    for name in cached.column_names:
        dataset = dataset.add_column(name, cached.data[name], feature=cached.features[name])
    return dataset


def _cached_columns(model: StormForConditionalGeneration, example: dict[str, list[Any]]) -> Features:
    """Types of the new columns, as far as this backbone has them."""
    size = model.config.hidden_size
    columns = {
        CACHED_PROMPT: List(Value("int32")),
        CACHED_STYLE: Value("string"),
        "prompt_mm_token_type_ids": List(Value("int8")),
        "prompt_clip_token_mask": List(Value("bool")),
        "video_features": Array2D((None, size), "float16"),
        "video_grid_thw": List(List(Value("int32"))),
        "second_per_grid_ts": List(Value("float32")),
    }
    if "video_deepstack" in example:
        columns["video_deepstack"] = Array3D((None, *example["video_deepstack"][0].shape[1:]), "float16")
    return Features({name: kind for name, kind in columns.items() if name in example})


def _encode_rows(
    rows: Sequence[dict[str, Any]], encoder: PromptEncoder, model: StormForConditionalGeneration
) -> dict[str, list[Any]]:
    batch = encode_rows(encoder, rows)
    videos = [encoder.count(row, "video") for row in rows]
    if "pixel_values" in batch:
        raise DatasetError(
            "Video features are cached for rows with videos alone, but these have pictures. Train on pixels."
        )
    if "video_grid_thw" not in batch:
        raise BackboneError(
            f"Video features can be cached for backbones with video grids, not for {model.backbone.config.model_type}. "
            "Train it on pixels."
        )
    with torch.inference_mode():
        flat = model.encode_video(
            pixel_values_videos=batch["pixel_values_videos"].to(model.device),
            video_grid_thw=batch["video_grid_thw"].to(model.device),
        )
    is_token = batch["attention_mask"].bool()
    sizes = (batch["mm_token_type_ids"] == 2).sum(dim=1).tolist()  # video tokens of each row
    columns: dict[str, list[Any]] = {
        CACHED_PROMPT: [row[keep].tolist() for row, keep in zip(batch["input_ids"], is_token, strict=True)],
        "prompt_mm_token_type_ids": [
            row[keep].tolist() for row, keep in zip(batch["mm_token_type_ids"], is_token, strict=True)
        ],
        "video_features": [to_float16(part).numpy() for part in flat["video_features"].split(sizes)],
        CACHED_STYLE: [encoder.question_style] * len(rows),
        "video_grid_thw": [grids.tolist() for grids in batch["video_grid_thw"].split(videos)],
    }
    if "clip_token_mask" in batch:
        masks = zip(batch["clip_token_mask"], is_token, strict=True)
        columns["prompt_clip_token_mask"] = [row[keep].tolist() for row, keep in masks]
    if "second_per_grid_ts" in batch:
        seconds = torch.as_tensor(batch["second_per_grid_ts"]).float()
        columns["second_per_grid_ts"] = [part.tolist() for part in seconds.split(videos)]
    if "video_deepstack" in flat:
        columns["video_deepstack"] = [to_float16(part).numpy() for part in flat["video_deepstack"].split(sizes, dim=1)]
    return columns
