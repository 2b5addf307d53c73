import pytest

from storm_hf.pipeline import Workspace, written_whole
from storm_hf.pipeline.workspace import write_json


def write_half(path, reason):
    with written_whole(path) as unfinished:
        unfinished.write_text("half")
        raise reason


def test_interrupted_writing_leaves_nothing(tmp_path):
    path = tmp_path / "step" / "shard"
    with pytest.raises(KeyboardInterrupt):
        write_half(path, KeyboardInterrupt())
    assert list(path.parent.iterdir()) == []


def test_failed_rewriting_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError):
        write_half(path, RuntimeError())
    assert path.read_text() == "old"


def test_files_are_absent_until_they_are_complete(tmp_path):
    path = tmp_path / "file"
    with written_whole(path) as unfinished:
        unfinished.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"


def test_equal_content_gives_equal_json(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1, "y": [2]})
    write_json(tmp_path / "b.json", {"y": [2], "x": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_half_written_shards_are_not_listed_and_can_be_removed(tmp_path):
    workspace = Workspace(tmp_path)
    shard, half = workspace.shard("step", "b"), workspace.shard("step", ".c.7.unfinished")
    shard.parent.mkdir()
    shard.write_text("whole")
    half.write_text("half")
    assert workspace.shards("step") == [shard]
    workspace.remove_unfinished("step")
    assert not half.exists()
    assert shard.exists()
