"""The recipe or the environment chooses what decodes clips, in every process of a build, and the build remembers it."""

import sys

import pytest
from tests.builder.tiny_build import tiny_recipe
from tests.video.fake_libraries import GIVE_UP, write_decord

from storm_hf.builder import ThoughtsBuilder
from storm_hf.builder.engines import build_with_workers
from storm_hf.errors import ConfigurationError, DatasetError, DependencyError, StaleWorkError
from storm_hf.video.library_process import stop_idle_processes


@pytest.fixture
def decord_that_gives_up(tmp_path, monkeypatch):
    """A decord that reads no clip."""
    write_decord(tmp_path, GIVE_UP)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    stop_idle_processes()
    yield
    stop_idle_processes()


def reasons(folder):
    return [path.read_text() for path in (folder / "work" / "30_thought_videos").glob("*.jsonl")]


@pytest.mark.parametrize("place", ["recipe", "environment"])
def test_clips_are_read_by_the_backend_that_was_chosen(
    place, annotations, qwen_checkpoint, tmp_path, monkeypatch, decord_that_gives_up
):
    reading = {"reading": {"video_backend": "decord"}} if place == "recipe" else {}
    if place == "environment":
        monkeypatch.setenv("STORM_VIDEO_BACKEND", "decord")
    with pytest.raises(DatasetError):
        ThoughtsBuilder(tiny_recipe(annotations, qwen_checkpoint, tmp_path / "data", **reading)).build()
    assert reasons(tmp_path / "data")
    assert all("cannot be read by decord (no such codec)" in text for text in reasons(tmp_path / "data"))


@pytest.mark.slow
@pytest.mark.parametrize("place", ["recipe", "environment"])
def test_workers_that_start_anew_read_with_it_too(
    place, annotations, qwen_checkpoint, tmp_path, monkeypatch, decord_that_gives_up
):
    reading = {"reading": {"video_backend": "decord"}} if place == "recipe" else {}
    if place == "environment":
        monkeypatch.setenv("STORM_VIDEO_BACKEND", "decord")
    with pytest.raises(DatasetError):
        build_with_workers(tiny_recipe(annotations, qwen_checkpoint, tmp_path / "data", **reading), 2)
    assert all("cannot be read by decord (no such codec)" in text for text in reasons(tmp_path / "data"))


def test_choice_of_the_environment_is_remembered_as_that_of_the_recipe_is(
    annotations, qwen_checkpoint, tmp_path, monkeypatch
):
    plain = tiny_recipe(annotations, qwen_checkpoint, tmp_path)
    named = tiny_recipe(annotations, qwen_checkpoint, tmp_path, reading={"video_backend": "decord"})
    monkeypatch.setenv("STORM_VIDEO_BACKEND", "decord")
    report = ThoughtsBuilder(plain).build()
    monkeypatch.delenv("STORM_VIDEO_BACKEND")
    assert ThoughtsBuilder(named).build() == report
    with pytest.raises(StaleWorkError, match="video_backend"):
        ThoughtsBuilder(plain).build()


def test_backend_that_cannot_read_here_ends_the_build_before_it_begins(
    annotations, qwen_checkpoint, tmp_path, monkeypatch
):
    recipe = tiny_recipe(annotations, qwen_checkpoint, tmp_path / "data", reading={"video_backend": "decord"})
    monkeypatch.setattr("storm_hf.video.library_process.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(DependencyError):
        ThoughtsBuilder(recipe).build()
    assert not (tmp_path / "data" / "work").exists()
    with pytest.raises(ConfigurationError, match="auto, pyav, decord, torchcodec"):
        tiny_recipe(annotations, qwen_checkpoint, tmp_path, reading={"video_backend": "opencv"})
