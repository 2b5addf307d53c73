import errno
import os
import stat

import pytest

from storm_hf.atomic import move_files, read_json, write_atomically, write_json, written_atomically
from storm_hf.errors import DatasetError


def write_half(path, reason):
    with written_atomically(path) as unfinished:
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
    with written_atomically(path) as unfinished:
        unfinished.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"


def test_file_is_written_with_its_folder_and_replaces_an_older_one(tmp_path):
    path = tmp_path / "new" / "page.html"
    write_atomically(path, "old")
    assert write_atomically(path, "é").read_text(encoding="utf-8") == "é"
    assert list(path.parent.iterdir()) == [path]


def test_interrupted_write_leaves_the_older_file_and_nothing_else(tmp_path):
    path = write_atomically(tmp_path / "page.html", "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "new \ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_equal_content_gives_equal_json(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1, "y": [2]})
    write_json(tmp_path / "b.json", {"y": [2], "x": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_json_is_read_as_it_was_written(tmp_path):
    content = {"name": "é", "rows": [1, None]}
    write_json(tmp_path / "new" / "a.json", content)
    assert read_json(tmp_path / "new" / "a.json") == content


def test_contents_reach_the_disk_before_the_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    path, done = tmp_path / "step" / "shard", []
    fsync = os.fsync

    def note(descriptor):
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        done.append(("folder" if is_folder else "file", path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    write_atomically(path, "whole")
    assert done == [("file", False), ("folder", True)]


def test_disk_that_cannot_flush_is_written_all_the_same(tmp_path, monkeypatch):
    def refuse(_):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    assert write_atomically(tmp_path / "file", "whole").read_text() == "whole"


def test_error_of_the_disk_while_flushing_leaves_no_file(tmp_path, monkeypatch):
    def refuse(_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="Input/output"):
        write_atomically(tmp_path / "file", "whole")
    assert list(tmp_path.iterdir()) == []


def test_moved_files_replace_those_of_their_names_and_leave_others(tmp_path):
    source, target = tmp_path / "new", tmp_path / "old"
    write_atomically(source / "a", "new")
    write_atomically(source / "inside" / "b", "new")
    write_atomically(target / "a", "old")
    write_atomically(target / "c", "old")
    move_files(source, target)
    contents = {path.relative_to(target).as_posix(): path.read_text() for path in target.rglob("*") if path.is_file()}
    assert contents == {"a": "new", "inside/b": "new", "c": "old"}
    assert not source.exists()


class RustError(Exception):
    """How libraries in Rust report errors of the system: as text."""


def test_error_of_the_system_that_a_library_reports_as_text_is_raised_as_one(tmp_path):
    with pytest.raises(OSError, match="No space left on device") as error, written_atomically(tmp_path / "file"):
        raise RustError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert error.value.errno == errno.ENOSPC
    assert isinstance(error.value.__cause__, RustError)


def test_other_errors_of_libraries_are_left_as_they_are(tmp_path):
    with pytest.raises(RustError), written_atomically(tmp_path / "file"):
        raise RustError("no such tensor")


@pytest.mark.parametrize("content", [b'{"num_rows": {"train"', b"", b"\xff\xfe"])
def test_json_that_was_cut_off_is_named(content, tmp_path):
    path = tmp_path / "manifest.json"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=f"^Expected JSON in {path} but it is damaged: "):
        read_json(path)
