from pathlib import Path

from datasets import Dataset

from storm_hf.pipeline.paths import relative_to, with_absolute_paths


def test_paths_become_absolute_and_columns_keep_their_order():
    rows = Dataset.from_dict({"video": ["videos/a.mp4", "/elsewhere/b.mp4"], "id": ["a", "b"]})
    opened = with_absolute_paths(rows, Path("/data"))
    assert opened.column_names == ["video", "id"]
    assert opened["video"][:] == ["/data/videos/a.mp4", "/elsewhere/b.mp4"]


def test_rows_without_a_thought_video_keep_none():
    rows = Dataset.from_dict({"video": ["a.mp4", "b.mp4"], "thought_video": ["c.mp4", None]})
    assert with_absolute_paths(rows, Path("/data"))["thought_video"][:] == ["/data/c.mp4", None]


def test_only_a_file_that_lies_in_the_folder_is_named_relative_to_it(monkeypatch):
    monkeypatch.chdir("/")
    assert relative_to(Path("data/videos/a.mp4"), Path("/data")) == "videos/a.mp4"
    assert relative_to(Path("database/a.mp4"), Path("/data")) == "/database/a.mp4"
