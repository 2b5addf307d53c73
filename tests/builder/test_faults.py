"""Faults of the machine stop a build in one sentence and cost nothing; those of a file cost its row."""

import errno
import os
from pathlib import Path

import pytest
from tests.builder.tiny_build import clips_and_annotations, published, tiny_recipe

from storm_hf.builder import ThoughtsBuilder, retry
from storm_hf.builder.row_steps import PromptStep, ThoughtStep
from storm_hf.errors import MachineError, VideoWriteError
from storm_hf.video.clip_file import ClipFile


@pytest.fixture
def source(tmp_path):
    """Ten clips of its own, since the tests change them."""
    return clips_and_annotations(tmp_path / "clips", 10)


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(retry, "WAITS_SECONDS", (0.0,))


def clips_away(monkeypatch, source):
    source.parent.rename(source.parent.with_name("away"))
    source.parent.mkdir()
    source.write_bytes((source.parent.with_name("away") / source.name).read_bytes())


def clips_back(source):
    source.unlink()
    source.parent.rmdir()
    source.parent.with_name("away").rename(source.parent)


def of_reading(code):
    def break_it(monkeypatch, source):
        monkeypatch.setattr(ClipFile, "read", lambda file, size: _failing(file, code))

    return break_it


def _failing(file, code):
    file._fault = OSError(code, os.strerror(code))
    return b""


def of_writing(code):
    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    return lambda monkeypatch, source: monkeypatch.setattr("storm_hf.video.write.av.open", refuse)


FAULTS = {
    "mount away": clips_away,
    "I/O error": of_reading(errno.EIO),
    "stale handle": of_reading(errno.ESTALE),
    "no memory": of_reading(errno.ENOMEM),
    "disk full": of_writing(errno.ENOSPC),
    "read-only": of_writing(errno.EROFS),
    "quota": of_writing(errno.EDQUOT),
    "largest file": of_writing(errno.EFBIG),
}


@pytest.mark.parametrize(("name", "row"), [*((name, 4) for name in FAULTS), ("mount away", 0)])
def test_fault_of_the_machine_costs_no_row(source, qwen_checkpoint, tmp_path, monkeypatch, hasty, name, row):
    recipe = tiny_recipe(source, qwen_checkpoint, tmp_path / "data")
    call, left = ThoughtStep.__call__, [row]

    def disturbed(self, *args):
        left[0] -= 1
        if left[0] == -1:
            FAULTS[name](monkeypatch, source)
        return call(self, *args)

    with monkeypatch.context() as patched:
        patched.setattr(ThoughtStep, "__call__", disturbed)
        with pytest.raises(MachineError) as error:
            ThoughtsBuilder(recipe).build()
    assert "\n" not in str(error.value)
    monkeypatch.undo()
    if name == "mount away":
        clips_back(source)
    report = ThoughtsBuilder(recipe).build()
    assert (report.num_rows, report.num_rejected) == ({"train": 10}, {})


def test_fault_that_passes_is_waited_for(source, qwen_checkpoint, tmp_path, monkeypatch):
    call, failures = ThoughtStep.__call__, [3]

    def disturbed(self, *args):
        if failures[0]:
            failures[0] -= 1
            raise MachineError("away")
        return call(self, *args)

    monkeypatch.setattr(ThoughtStep, "__call__", disturbed)
    monkeypatch.setattr(retry, "WAITS_SECONDS", (0.0,) * 3)
    report = ThoughtsBuilder(tiny_recipe(source, qwen_checkpoint, tmp_path / "data")).build()
    assert (report.num_rows, report.num_rejected) == ({"train": 10}, {})


@pytest.mark.parametrize("step", [PromptStep, ThoughtStep])
def test_disk_full_is_one_sentence(source, qwen_checkpoint, tmp_path, monkeypatch, step):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(step, "__call__", refuse)
    with pytest.raises(
        MachineError, match=r"The build of .*data stopped for a fault of this machine: .*No space left .*same command"
    ):
        ThoughtsBuilder(tiny_recipe(source, qwen_checkpoint, tmp_path / "data")).build()


def test_errors_of_this_package_and_bugs_are_left_as_they_are(tmp_path):
    for error in (VideoWriteError("odd size"), KeyError("bug"), FileNotFoundError(errno.ENOENT, "nothing")):
        with pytest.raises(type(error)), retry.machine_faults_named(tmp_path):
            raise error


def test_clips_of_any_broken_kind_cost_their_rows(source, qwen_checkpoint, tmp_path):
    clips = source.parent
    good = (clips / "0.mp4").read_bytes()
    contents = [good.replace(b"avc1", b"encv"), good.replace(b"avc1", b"zzzz"), good.replace(b"vide", b"soun")]
    contents += [b"#EXTM3U\n#EXTINF:1,\n9.mp4\n", b"<svg xmlns='http://www.w3.org/2000/svg'/>", good[:-200]]
    for number, content in enumerate(contents):
        (clips / f"{number}.mp4").write_bytes(content)
    report = ThoughtsBuilder(tiny_recipe(source, qwen_checkpoint, tmp_path / "data")).build()
    assert report.num_rows == {"train": 10 - len(contents)}
    assert report.num_rejected == {"30_thought_videos": {"unreadable": len(contents)}}


def test_finished_build_that_may_not_be_written_shows_its_report(built, annotations, qwen_checkpoint, monkeypatch):
    recipe = tiny_recipe(annotations, qwen_checkpoint, built)
    expected = ThoughtsBuilder(recipe).build()
    before = published(built)

    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("storm_hf.pipeline.lock.locked", refuse)
    for name in ("mkdir", "unlink", "replace", "touch", "write_text", "write_bytes"):
        monkeypatch.setattr(Path, name, refuse)
    assert ThoughtsBuilder(recipe).build() == expected
    assert published(built) == before
