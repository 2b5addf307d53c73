import pytest

from storm_hf.writing import written_whole


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
