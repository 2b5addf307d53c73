"""Rows rejected for what has passed are taken up again, and end as if nothing had happened."""

import os

import pytest
from tests.builder.tiny_build import clips_and_annotations, published, tiny_recipe

from storm_hf.builder import ThoughtsBuilder, row_steps
from storm_hf.builder.retry import retry_rows
from storm_hf.errors import DatasetError, VideoReadError
from storm_hf.thought_video import FutureGenerator


@pytest.fixture
def source(tmp_path):
    """Ten clips of its own, since the tests change them."""
    return clips_and_annotations(tmp_path / "clips", 10)


def slow_for(monkeypatch, names, timeout_seconds):
    """Have the generator need more time for some rows than `timeout_seconds`."""
    generate = FutureGenerator.generate

    def slowly(self, annotation, **words):
        from storm_hf.video.limits import reading_defaults

        if annotation.id in names and reading_defaults().timeout_seconds <= timeout_seconds:
            return row_steps.Rejected.of(VideoReadError("too slow", reading_defaults().timeout_seconds))
        return generate(self, annotation, **words)

    monkeypatch.setattr(FutureGenerator, "generate", slowly)


@pytest.mark.parametrize("settings", [{}, {"keep_thoughts": False}, {"gates": {"duplicate": {}}}])
@pytest.mark.parametrize("names", [{"q04"}, {f"q{number:02d}" for number in range(10)} - {"q00", "q08"}])
def test_rows_lost_to_a_time_out_come_back_when_it_grows(
    source, qwen_checkpoint, tmp_path, monkeypatch, settings, names
):
    whole = ThoughtsBuilder(tiny_recipe(source, qwen_checkpoint, tmp_path / "whole", **settings)).build()
    slow_for(monkeypatch, names, 5.0)
    recipes = [
        tiny_recipe(source, qwen_checkpoint, tmp_path / "slow", reading={"timeout_seconds": seconds}, **settings)
        for seconds in (4.0, 4.0, 600.0)
    ]
    first, same, longer = (ThoughtsBuilder(recipe).build() for recipe in recipes)
    assert first.num_rows == same.num_rows == {"train": 10 - len(names)}
    assert longer == whole
    ours, theirs = published(tmp_path / "slow"), published(tmp_path / "whole")
    assert {name for name in ours if ours[name] != theirs.get(name)} == set()
    assert ours.keys() == theirs.keys()


def test_only_the_shards_of_such_rows_are_made_again(source, qwen_checkpoint, tmp_path, monkeypatch):
    slow_for(monkeypatch, {"q04"}, 5.0)
    recipe = tiny_recipe(source, qwen_checkpoint, tmp_path / "data", reading={"timeout_seconds": 4.0})
    ThoughtsBuilder(recipe).build()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").glob("*/**/train-*") if path.is_file()}
    recipe = tiny_recipe(source, qwen_checkpoint, tmp_path / "data", reading={"timeout_seconds": 600.0})
    ThoughtsBuilder(recipe).build()
    anew = {path.name for path, written in before.items() if path.stat().st_mtime_ns != written}
    assert anew == {"train-00001.jsonl", "train-00001-of-00004.parquet"}


def test_clip_that_was_mended_is_read_after_retry(source, qwen_checkpoint, tmp_path):
    recipe = tiny_recipe(source, qwen_checkpoint, tmp_path / "data")
    clip = source.parent / "4.mp4"
    good = clip.read_bytes()
    clip.write_bytes(good[:-200])
    assert ThoughtsBuilder(recipe).build().num_rejected == {"30_thought_videos": {"unreadable": 1}}
    clip.write_bytes(good)
    assert ThoughtsBuilder(recipe).build().num_rows == {"train": 9}, "nothing says that it was mended"
    assert retry_rows(tmp_path / "data", "unreadable") == 1
    assert not (tmp_path / "data" / "manifest.json").exists()
    assert ThoughtsBuilder(recipe).build().num_rows == {"train": 10}
    whole = tmp_path / "whole"
    ThoughtsBuilder(tiny_recipe(source, qwen_checkpoint, whole)).build()
    assert published(tmp_path / "data") == published(whole)


def test_duplicate_of_a_row_that_goes_is_kept_after_retry(source, qwen_checkpoint, tmp_path):
    """q03 shows the same as q07. Once q03 is broken q07 is kept, and refused again when q03 is back."""
    clips = source.parent
    (clips / "7.mp4").write_bytes((clips / "3.mp4").read_bytes())
    good = (clips / "3.mp4").read_bytes()
    recipe = tiny_recipe(source, qwen_checkpoint, tmp_path / "data", gates={"duplicate": {}})
    (clips / "3.mp4").write_bytes(good[:-200])
    assert ThoughtsBuilder(recipe).build().num_rejected == {"30_thought_videos": {"unreadable": 1}}
    (clips / "3.mp4").write_bytes(good)
    retry_rows(tmp_path / "data", "unreadable")
    assert ThoughtsBuilder(recipe).build().num_rejected == {"35_selection": {"duplicate": 1}}
    ThoughtsBuilder(tiny_recipe(source, qwen_checkpoint, tmp_path / "whole", gates={"duplicate": {}})).build()
    assert published(tmp_path / "data") == published(tmp_path / "whole")


def test_killed_retry_can_be_given_again(source, qwen_checkpoint, tmp_path, monkeypatch):
    recipe = tiny_recipe(source, qwen_checkpoint, tmp_path / "data")
    clip = source.parent / "4.mp4"
    good = clip.read_bytes()
    clip.write_bytes(good[:-200])
    ThoughtsBuilder(recipe).build()
    clip.write_bytes(good)
    replace = os.replace
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        retry_rows(tmp_path / "data", "unreadable")
    monkeypatch.setattr("pathlib.Path.replace", lambda self, target: replace(self, target))
    assert retry_rows(tmp_path / "data", "unreadable") == 1
    assert ThoughtsBuilder(recipe).build().num_rows == {"train": 10}


@pytest.mark.parametrize("reason", ["unreadable", "duplicate", "annotation"])
def test_reason_that_no_shard_has_is_named(built, reason):
    with pytest.raises(DatasetError, match=f"rejected as '{reason}' but there are none"):
        retry_rows(built, reason)


def test_folder_without_a_build_is_named(tmp_path):
    with pytest.raises(DatasetError, match="holds none that has read its annotations"):
        retry_rows(tmp_path, "unreadable")
