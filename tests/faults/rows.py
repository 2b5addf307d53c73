"""One row of the table: a command, the fault that strikes it, and what became of its work."""

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import hub, linux
from tests.faults.child import Child, Ending, TookTooLong
from tests.faults.commands import Command
from tests.faults.files import Hashes, changed, markers_of
from tests.faults.place import Place


SECONDS = 300.0  # for one run of one command


@dataclass(frozen=True)
class Reference:
    """What an undisturbed run leaves, how large that is, and how many events it has."""

    result: Hashes
    finished: Hashes
    size: int
    num_events: int


@dataclass
class Scene:
    """A command in the moment of a fault.

    Args:
        command ([`Command`]):
            The command.
        place ([`Place`]):
            What it reads and writes.
        reference ([`Reference`]):
            Of a run without a fault.
        draw (`random.Random`):
            Draws the moment and the size of the fault.
        notes (`list[str]`):
            What the fault has to say.
    """

    command: Command
    place: Place
    reference: Reference
    draw: random.Random
    notes: list[str] = field(default_factory=list)

    def start(self, stop_at: int | None = None) -> Child:
        """Start the command."""
        place = self.place
        return Child(lambda: self.command.work(place), place.root, stop_at)

    def begin(self) -> None:
        """Copy what the command begins with."""
        begin(self.place, self.command)

    @property
    def writes(self) -> Path:
        """The folder that fills up."""
        return self.place.root / self.command.writes

    @property
    def reads(self) -> Path:
        """The folder that the command reads."""
        return self.place.read(self.command.reads)


@dataclass(frozen=True)
class Fault:
    """A fault of the machine.

    Args:
        name (`str`):
            What the table calls it.
        strike (`Callable[[Scene, Child], None]`):
            Makes it, while the command has stopped. The command goes on afterwards.
        prepare (`Callable[[Scene], None]`, *optional*):
            What must be there before the command starts.
        mend (`Callable[[Scene], None]`, *optional*):
            Ends it.
        is_of_a_file (`bool`, *optional*, defaults to `False`):
            Whether a command may end without the rows that it struck, which the same command takes up again.
    """

    name: str
    strike: Callable[[Scene, Child], None]
    prepare: Callable[[Scene], None] = lambda scene: None
    mend: Callable[[Scene], None] = lambda scene: None
    is_of_a_file: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of a command under a fault.

    Args:
        ending (`str`):
            How it ended, or that it did not.
        says (`str`):
            What it printed last.
        moment (`str`):
            Events before the fault, of all.
        finished (`int`):
            Finished files at that time.
        faults (`tuple[str, ...]`):
            What was lost, half-written or repeated, or how the same command failed afterwards.
    """

    ending: str
    says: str
    moment: str
    finished: int
    faults: tuple[str, ...]


def clean_folders(place: Place) -> None:
    """Empty the folders that commands write."""
    for folder in (place.out, place.home):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()


def clean(place: Place, command: Command) -> None:
    """Empty the folders that commands write, and copy what this one begins with."""
    clean_folders(place)
    begin(place, command)


def begin(place: Place, command: Command) -> None:
    """Copy what a command begins with."""
    if command.begins_with is not None:
        shutil.copytree(place.read(command.begins_with), place.out / command.begins_with)


def make_reference(command: Command, place: Place) -> Reference:
    """Run a command twice without a fault, since what differs by itself proves nothing.

    Raises:
        AssertionError: If it fails, or ends in two ways.
    """
    seen = [_make_once(command, place) for _ in range(2)]
    differing = changed(seen[0].result, seen[1].result)
    assert not differing, f"{command.name} ends in two ways without a fault: {differing}"
    return seen[0]


def _make_once(command: Command, place: Place) -> Reference:
    clean(place, command)
    with hub.opened(place.port):
        _do_before(command, place)
        ending = Child(lambda: command.work(place), place.root).wait(2 * SECONDS)
        assert ending.code == 0, f"{command.name} fails without a fault: {ending}"
        written = place.root / command.writes
        size = sum(path.stat().st_size for path in written.rglob("*") if path.is_file())
        return Reference(command.result(place.out), command.finished(place.out), size, ending.num_events)


def _do_before(command: Command, place: Place) -> None:
    if (before := command.before) is not None:
        ending = Child(lambda: before(place), place.root).wait(SECONDS)
        assert ending.code == 0, f"what comes before {command.name} fails: {ending}"


def play(scene: Scene, fault: Fault) -> Outcome:
    """Let a fault strike a command, mend it, and give the same command again."""
    with hub.opened(scene.place.port):
        clean(scene.place, scene.command)
        _do_before(scene.command, scene.place)
        return _strike(scene, fault)


def _strike(scene: Scene, fault: Fault) -> Outcome:
    fault.prepare(scene)
    number = scene.draw.randint(1, max(scene.reference.num_events - 1, 1))
    child = scene.start(number)
    is_struck = child.wait_for_stop(SECONDS)
    if is_struck:
        fault.strike(scene, child)
        child.go_on()
    ending = _end_of(child)
    finished, markers = scene.command.finished(scene.place.out), markers_of(scene.place.out)
    if fault.is_of_a_file:
        finished, markers = {}, {}
    fault.mend(scene)
    again = _end_of(scene.start())
    faults = [
        *(f"half-written or different: {name}" for name in changed(finished, scene.reference.finished)),
        *_faults_of_end(scene, again, finished, markers),
        *([] if is_struck else ["never struck"]),
        *(["hangs"] if isinstance(ending, TookTooLong) else []),
    ]
    manner, says = ("hangs", "") if isinstance(ending, TookTooLong) else (ending.manner, ending.last_line)
    says = "; ".join([*scene.notes, says])
    return Outcome(manner, says, f"{number}/{scene.reference.num_events}", len(finished), tuple(faults))


def _end_of(child: Child) -> Ending | TookTooLong:
    try:
        return child.wait(SECONDS)
    except TookTooLong as error:
        return error


def _faults_of_end(scene: Scene, again: Ending | TookTooLong, finished: Hashes, markers: dict[str, int]) -> list[str]:
    """Compare what the same command ended with."""
    if isinstance(again, TookTooLong):
        return ["the same command hangs"]
    if again.code != 0:
        return [f"the same command fails with code {again.code}: {again.last_line}"]
    out = scene.place.out
    result, times = scene.command.result(out), markers_of(out)
    differing = sorted({*changed(scene.reference.result, result), *changed(result, scene.reference.result)})
    lost = changed(finished, scene.command.finished(out))
    return [
        *(f"ends otherwise: {name}" for name in differing),
        *(f"lost: {name}" for name in lost),
        *(f"made twice: {name}" for name, time in markers.items() if times.get(name) != time),
    ]


def enter(place: Place) -> None:
    """Make mounts possible for this process alone."""
    linux.enter_namespace()
    os.chdir(place.root)
