from pathlib import Path

import pytest
from datasets import Dataset, Features, List, Value

from storm_hf.pipeline.paths import relative_to, with_absolute_paths


def test_paths_become_absolute_and_columns_keep_their_order():
    rows = Dataset.from_dict({"video": ["videos/a.mp4", "/elsewhere/b.mp4"], "id": ["a", "b"]})
    opened = with_absolute_paths(rows, Path("/data"))
    assert opened.column_names == ["video", "id"]
    assert opened["video"][:] == ["/data/videos/a.mp4", "/elsewhere/b.mp4"]


@pytest.mark.parametrize("kind", ["string", "large_string"])
def test_paths_of_pandas_and_lists_of_paths_become_absolute(kind):
    features = Features({"video": Value(kind), "videos": List(Value(kind))})
    rows = Dataset.from_dict({"video": ["a.mp4"], "videos": [["b.mp4", "/c.mp4"]]}, features=features)
    opened = with_absolute_paths(rows, Path("/data"))
    assert opened[0] == {"video": "/data/a.mp4", "videos": ["/data/b.mp4", "/c.mp4"]}
    assert opened.features == features


@pytest.mark.parametrize("url", ["file:///clips/a.mp4", "https://x.org/a.mp4", "data:video/mp4;base64,AAAA"])
def test_url_is_no_path_in_the_folder(url):
    rows = Dataset.from_dict({"id": ["a"], "video": [url]})
    assert with_absolute_paths(rows, Path("/data"))["video"][:] == [url]


def test_rows_without_a_thought_video_keep_none():
    rows = Dataset.from_dict({"video": ["a.mp4", "b.mp4"], "thought_video": ["c.mp4", None]})
    assert with_absolute_paths(rows, Path("/data"))["thought_video"][:] == ["/data/c.mp4", None]


def test_only_a_file_that_lies_in_the_folder_is_named_relative_to_it(monkeypatch):
    monkeypatch.chdir("/")
    assert relative_to(Path("data/videos/a.mp4"), Path("/data")) == "videos/a.mp4"
    assert relative_to(Path("database/a.mp4"), Path("/data")) == "/database/a.mp4"
