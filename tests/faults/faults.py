"""The faults of a machine."""

import os
import signal
import time
from collections.abc import Callable

from tests.faults import hub, linux
from tests.faults.child import Child, TookTooLong
from tests.faults.rows import Fault, Scene


_MIB = 2**20
_LONGEST_DELAY = 0.02  # seconds between an event and the signal, so that it comes inside native code too
_PATIENCE = 20.0  # seconds that a second run is waited for


def _signal(number: int) -> Callable[[Scene, Child], None]:
    def strike(scene: Scene, child: Child) -> None:
        child.go_on()
        time.sleep(scene.draw.uniform(0, _LONGEST_DELAY))
        child.kill(number)

    return strike


def _mount_disk(scene: Scene) -> None:
    linux.mount_small_disk(scene.writes, 4 * scene.reference.size + 64 * _MIB)
    scene.begin()


def _fill_disk(scene: Scene, child: Child) -> None:
    linux.fill_disk(scene.writes, scene.draw.choice((0, 4096, scene.reference.size // 8)))


def _limit_size(scene: Scene, child: Child) -> None:
    linux.limit_file_size(child.pid, scene.draw.choice((1, 1000, 20_000)))


def _make_read_only(scene: Scene, child: Child) -> None:
    for _ in range(500):
        if linux.make_read_only(scene.place.out):
            return
        child.go_on()  # until no file is being written
        time.sleep(0.001)
        os.kill(child.pid, signal.SIGSTOP)
        time.sleep(0.001)
    scene.notes.append("always writing")


def _limit_files(scene: Scene, child: Child) -> None:
    linux.limit_files(child.pid, scene.draw.choice((0, 0, 1)))


def _run_again(scene: Scene, child: Child) -> None:
    """Give the same command while the first one has stopped in the middle."""
    second = scene.start()
    if second.is_running(_PATIENCE):
        child.go_on()
        scene.notes.append("the second waits")
    try:
        ending = second.wait(_PATIENCE)
        scene.notes.append(f"the second: {ending.manner}: {ending.last_line}")
    except TookTooLong:
        scene.notes.append("the second goes on waiting")


def _cut_upload(scene: Scene, child: Child) -> None:
    hub.store().bytes_until_cut = scene.draw.choice((0, 100, 5000))


def _answer_errors(scene: Scene, child: Child) -> None:
    hub.store().status = scene.draw.choice((500, 502, 503, 504))


def _lose_network(scene: Scene, child: Child) -> None:
    hub.store().is_away = True


def _recover(scene: Scene) -> None:
    hub.store().recover()


def _hang(scene: Scene) -> None:
    scene.place.write_reading(timeout_seconds=2.0)
    scene.place.hanging_library.write_text(_HANGING)


def _read_well(scene: Scene) -> None:
    scene.place.write_reading()
    scene.place.hanging_library.unlink()


_HANGING = """
import ctypes
import sys
from pathlib import Path

own = sys.modules.pop("decord")
sys.path.remove(str(Path(__file__).parent))
import decord as real

def VideoReader(path, num_threads):
    if Path(path).stem in ("1", "4"):
        ctypes.PyDLL(None).sleep(1000)  # holds the interpreter's lock
    return real.VideoReader(path, num_threads=num_threads)

sys.modules["decord"] = own
"""

FAULTS = {
    fault.name: fault
    for fault in (
        Fault("kill", _signal(signal.SIGKILL)),
        Fault("SIGTERM", _signal(signal.SIGTERM)),
        Fault("full disk", _fill_disk, _mount_disk, lambda scene: linux.empty_disk(scene.writes)),
        Fault("quota", _limit_size),
        Fault(
            "read-only",
            _make_read_only,
            lambda scene: linux.mount_on_itself(scene.place.out),
            lambda scene: linux.make_read_only(scene.place.out, False) and None,
        ),
        Fault(
            "mount away",
            lambda scene, child: linux.take_away(scene.reads),
            mend=lambda scene: linux.bring_back(scene.reads),
        ),
        Fault("too many files", _limit_files),
        Fault("two runs", _run_again),
        Fault("hanging decoder", lambda scene, child: None, _hang, _read_well, is_of_a_file=True),
        Fault("hanging decoder, kill", _signal(signal.SIGKILL), _hang, _read_well, is_of_a_file=True),
        Fault("lost network", _lose_network, mend=_recover),
        Fault("server errors", _answer_errors, mend=_recover),
        Fault("cut upload", _cut_upload, mend=_recover),
    )
}
