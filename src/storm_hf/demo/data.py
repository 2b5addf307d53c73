"""Data of the demo: real mp4 files, the thought-video data set made of them, and question clips encoded once."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from datasets import Dataset, concatenate_datasets, disable_progress_bars, load_from_disk
from transformers import AutoProcessor, ProcessorMixin

from storm_hf.demo.folder import DemoFolder
from storm_hf.demo.recipe import DemoRecipe
from storm_hf.demo.tasks import Report
from storm_hf.inputs.features import cache_video_features
from storm_hf.inputs.wording import ASKED_COLUMNS
from storm_hf.model import StormForConditionalGeneration
from storm_hf.target_trajectory import TargetSettings, build_thoughts, load_thoughts
from storm_hf.thought_video import WorldExample, WorldRecipe, WorldSplit, render_world
from storm_hf.training.loading import caption_rows


_ROWS_PER_SHARD = 512
_SECOND_FORM = "test_open"  # the test clips again, asked in the second form of the recipe


def world_recipe(recipe: DemoRecipe) -> WorldRecipe:
    """The episodes that the demo needs: train, validation (the gallery), test (so many of each depth)."""
    splits = {
        "train": WorldSplit(count=recipe.num_train, open_share=recipe.open_share, wordings=recipe.wordings),
        "validation": WorldSplit(count=recipe.num_gallery),
        "test": WorldSplit(depths=dict(recipe.test_depths)),
    }
    return WorldRecipe(recipe.world, splits, recipe.knobs, recipe.seed, recipe.canvas)


def render(folder: DemoFolder, recipe: DemoRecipe, workers: int, report: Report) -> None:
    """Render all episodes to mp4 files. Worker."""
    finished = itertools.count(1)
    render_world(
        world_recipe(recipe),
        folder.data,
        workers=workers,
        start_method="fork",
        on_finished=lambda _: report(next(finished)),
    )


def examples_of(folder: DemoFolder, recipe: DemoRecipe) -> dict[str, list[WorldExample]]:
    """The rendered episodes of each split."""
    return render_world(world_recipe(recipe), folder.data)


def _in_second_form(folder: DemoFolder, recipe: DemoRecipe) -> Sequence[WorldExample]:
    """The test clips, asked about without options or, where there are several wordings, in those never trained on."""
    asked = world_recipe(recipe)
    if recipe.wordings == "usual":
        return [replace(example, options=()) for example in render_world(asked, folder.data)["test"]]
    held_out = replace(asked.splits["test"], wordings="held_out")
    return render_world(replace(asked, splits={"test": held_out}), folder.data)["test"]


def captions(examples: Sequence[WorldExample]) -> Dataset:
    """Make the rows that teach a model to see: captions of the clips and of the thought videos."""
    rows = [
        {
            "video": str(example.video),
            "thought_video": str(example.thought.path),
            "clip_caption": example.clip_caption,
            "thought_caption": example.thought_caption,
        }
        for example in examples
    ]
    return caption_rows(Dataset.from_list(rows))


def encode_thoughts(folder: DemoFolder, recipe: DemoRecipe, report: Report) -> None:
    """Encode the thought videos with the frozen vision tower and write the data set as Parquet. Worker."""
    disable_progress_bars()
    model, processor = load(folder.base)
    settings = TargetSettings(recipe.num_latents, rank=recipe.whitening_rank or "auto", layout=recipe.target_layout)
    finished = itertools.count(1)
    build_thoughts(
        folder.data,
        examples_of(folder, recipe),
        model,
        processor,
        settings,
        encoder="demo base",
        rows_per_shard=_ROWS_PER_SHARD,
        on_finished=lambda _: report(_ROWS_PER_SHARD * next(finished)),
    )


def encode_clips(folder: DemoFolder, recipe: DemoRecipe, report: Report) -> None:
    """Encode the question clips once, those of the test in both forms. Worker."""
    disable_progress_bars()
    model, processor = load(folder.base)
    done = 0
    splits = examples_of(folder, recipe)
    splits[_SECOND_FORM] = list(_in_second_form(folder, recipe))
    for split, examples in splits.items():
        rows = [
            {
                "video": str(example.video),
                "question": example.question,
                "options": list(example.options),
            }
            for example in examples
        ]
        cached = cache_video_features(Dataset.from_list(rows), model, processor)
        cached.remove_columns(["video", "question", "options"]).save_to_disk(folder.cached / split)
        done += len(rows)
        report(done)


def dataset(folder: DemoFolder, split: str, *, with_thoughts: bool) -> Dataset:
    """Rows of a split: the thought-video data set with the encoded question clips beside it.

    Args:
        folder ([`DemoFolder`]):
            Of the demo.
        split (`str`):
            `train`, `validation` or `test`.
        with_thoughts (`bool`):
            Whether to keep the columns of the thought videos. Only Stage I trains with them.
    """
    rows = load_thoughts(folder.data)[split]
    if not with_thoughts:
        rows = rows.remove_columns([name for name in rows.column_names if name.startswith("thought_")])
    return concatenate_datasets([rows, load_from_disk(folder.cached / split)], axis=1).with_format("numpy")


def tests_in_second_form(folder: DemoFolder, recipe: DemoRecipe) -> Dataset:
    """Rows of `test` with thoughts, whose encoded prompts ask in the second form.

    Asked without options, rows keep their column `options`, to read answers by; in other wordings they have the columns of an
    [`~storm_hf.thought_video.AskedExample`] instead.
    """
    rows, prompts = load_thoughts(folder.data)["test"], load_from_disk(folder.cached / _SECOND_FORM)
    if recipe.wordings != "usual":
        asked = [_columns_of(example) for example in _in_second_form(folder, recipe)]
        usual = rows.select_columns([name for name in rows.column_names if name not in asked[0]])
        rows = concatenate_datasets([usual, Dataset.from_list(asked)], axis=1)
    return concatenate_datasets([rows, prompts], axis=1).with_format("numpy")


def _columns_of(example: WorldExample) -> dict[str, object]:
    return {name: getattr(example, name) for name in ("question", "options", "answer", *ASKED_COLUMNS)}


def load(checkpoint: Path, **config: object) -> tuple[StormForConditionalGeneration, ProcessorMixin]:
    """Load a checkpoint of the demo with its processor, with other fields of its configuration if some are given."""
    model = StormForConditionalGeneration.from_pretrained(checkpoint, **config)
    return model, AutoProcessor.from_pretrained(checkpoint)
