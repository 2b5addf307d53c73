"""The frozen vision tower of a recipe, loaded when the first shard needs it."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel

from storm_hf.builder.recipe import ModelSettings, ThoughtsRecipe
from storm_hf.builder.records import Row
from storm_hf.model import register
from storm_hf.target_trajectory.shard_encoder import ShardEncoder
from storm_hf.thought_video import ThoughtExample, WorldExample


def load_encoder(recipe: ThoughtsRecipe, folder: Path) -> ShardEncoder:
    """Load the model and what belongs to it.

    Args:
        recipe ([`ThoughtsRecipe`]):
            Says which, in which dtype, and how many threads this process has from now on.
        folder (`Path`):
            The data set.
    """
    register()
    settings = recipe.encoder
    processor = AutoProcessor.from_pretrained(settings.model, revision=settings.revision)
    return ShardEncoder(
        folder,
        load_model(settings),
        processor,
        name=settings.model,
        batch_size=settings.batch_size,
        is_world=recipe.world is not None,
        keeps_thoughts=recipe.keep_thoughts,
    )


def load_model(settings: ModelSettings) -> PreTrainedModel:
    """Load a video-language model to be asked, and give this process as many threads as it may have."""
    torch.set_num_threads(settings.threads)
    device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = getattr(torch, settings.dtype)
    model = AutoModelForImageTextToText.from_pretrained(settings.model, revision=settings.revision, dtype=dtype)
    return model.to(device).eval()


def example_of(row: Row, folder: Path) -> ThoughtExample:
    """The example that a row with a thought video makes; a world's knows more."""
    annotation = row.annotation
    question: dict[str, Any] = {
        "id": annotation.id,
        "video": folder / row.video,
        "question": annotation.question,
        "options": annotation.options,
        "answer": annotation.answer,
        "thought": row.thought_video(folder),
    }
    if not row.words:
        return ThoughtExample(
            **question,
            clip_source=annotation.source or "unknown",
            clip_license=annotation.license or "unknown",
            clip_file=annotation.video.name,
        )
    words = {name: value for name, value in row.words.items() if name != "asked"}
    return WorldExample(**question, **words | {"states": tuple(words["states"])})
