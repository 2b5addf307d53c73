"""All rows of the table of faults, and how they are played: each in a process of its own, with a time-out."""

import importlib
import os
import pickle
import random
import signal
import time
import traceback
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from tests.faults.commands import COMMANDS
from tests.faults.faults import FAULTS
from tests.faults.linux import NotPossibleHere, descendants
from tests.faults.place import Place
from tests.faults.rows import SECONDS, Outcome, Reference, Scene, enter, make_reference, play
from tests.faults.server import STRIKES, play_server


WRITING = ("build", "worlds", "align", "answer", "imagine", "diagnose")
LONG = ("run", "demo")
SERVE = "serve"
_OF_WRITING = ("kill", "kill", "kill", "SIGTERM", "full disk", "full disk", "quota", "read-only", "too many files")
_OF_LONG = ("kill", "kill", "SIGTERM", "full disk", "two runs")
_OF_HUB = ("kill", "kill", "SIGTERM", "lost network", "lost network", "server errors", "too many files", "two runs")
_OF_READING = ("kill", "mount away", "too many files")
_PRELOADED = (
    "storm_hf.align.trainer",
    "storm_hf.answer.trainer",
    "storm_hf.builder",
    "storm_hf.cli",
    "storm_hf.diagnostics.diagnosis",
    "storm_hf.diagnostics.latent_decoder.run",
    "storm_hf.demo.stages",
    "storm_hf.hub.push",
    "storm_hf.serving.run",
    "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
    "peft",
)


@dataclass(frozen=True)
class Row:
    """A fault of a command; `number` tells rows apart that are otherwise the same."""

    fault: str
    command: str
    number: int = 0

    @property
    def title(self) -> str:
        """What `--only` looks at."""
        return f"{self.fault}: {self.command}"

    @property
    def cells(self) -> tuple[str, str]:
        """Its first cells."""
        return self.fault, self.command


@dataclass(frozen=True)
class Played:
    """An outcome, as cells and as a verdict: `held`, `FAULT` or `not possible here`."""

    verdict: str
    cells: tuple[str, ...]


def rows(times: int = 1) -> list[Row]:
    """List all rows."""
    pairs = [(fault, command) for command in WRITING for fault in (*_OF_WRITING, "mount away", "two runs")]
    pairs += [(fault, command) for command in LONG for fault in _OF_LONG]
    pairs += [(fault, "ask") for fault in _OF_READING]
    pairs += [
        (fault, command) for command in ("push data", "push model") for fault in (*_OF_HUB, "cut upload", "mount away")
    ]
    pairs += [(fault, "build with decord") for fault in ("hanging decoder", "hanging decoder, kill")]
    pairs += [(fault, SERVE) for fault in STRIKES]
    pairs += [(fault, "pull") for fault in (*_OF_HUB, "full disk")]
    numbered: dict[tuple[str, str], int] = {}
    found = []
    for fault, command in pairs * times:
        numbered[fault, command] = numbered.get((fault, command), -1) + 1
        found.append(Row(fault, command, numbered[fault, command]))
    return sorted(found, key=lambda row: [*COMMANDS, SERVE].index(row.command))


def outcomes(chosen: Sequence[Row], root: Path, port: int, seed: int) -> Iterator[tuple[Row, Played]]:
    """Play rows one after the other."""
    for module in _PRELOADED:
        importlib.import_module(module)
    place = Place(root, port)
    in_process(place.prepare, SECONDS)
    references: dict[str, Reference] = {}
    for row in chosen:
        if row.command == SERVE:
            yield row, _played(_isolated(partial(play_server, place, row.fault), place))
            continue
        command = COMMANDS[row.command]
        if row.command not in references:
            references[row.command] = in_process(
                _isolated(partial(make_reference, command, place), place), 5 * SECONDS
            )
        draw = random.Random(zlib.crc32(f"{seed} {row.title} {row.number}".encode()))
        scene = Scene(command, place, references[row.command], draw)
        yield row, _played(_isolated(partial(play, scene, FAULTS[row.fault]), place))


def _isolated(work: Callable[[], Any], place: Place) -> Callable[[], Any]:
    def do() -> Any:
        with (place.root / "stderr.txt").open("ab") as file:
            os.dup2(file.fileno(), 2)  # what libraries and the Hub print
        enter(place)
        return work()

    return do


def _played(work: Callable[[], Outcome]) -> Played:
    try:
        outcome = in_process(work, 4 * SECONDS)
    except NotPossibleHere as error:
        return Played("not possible here", ("-", "-", "-", str(error)))
    except TimeoutError as error:
        return Played("FAULT", ("-", "-", "-", str(error)))
    verdict = "FAULT" if outcome.faults else "held"
    says = "; ".join(outcome.faults) or f"held; {outcome.says}"
    return Played(verdict, (outcome.moment, outcome.ending, str(outcome.finished), says))


def in_process(work: Callable[[], Any], seconds: float) -> Any:
    """Do something in a forked process and return what it returns; what it raises is raised here.

    Raises:
        TimeoutError: If it takes longer. It is killed then, with all that came of it.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _do(work, writing)
    os.close(writing)
    deadline = time.monotonic() + seconds
    with os.fdopen(reading, "rb") as pipe:
        os.set_blocking(reading, False)
        content = b""
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            content += pipe.read() or b""
            if time.monotonic() > deadline:
                _kill(pid)
                raise TimeoutError(f"more than {seconds:.0f} s")
            time.sleep(0.01)
        content += pipe.read() or b""
    is_fine, result = pickle.loads(content)  # what this program wrote
    if is_fine:
        return result
    raise result


def _do(work: Callable[[], Any], writing: int) -> None:
    try:
        outcome = (True, work())
    except BaseException as error:
        traceback.print_exc()
        is_known = isinstance(error, NotPossibleHere)
        outcome = (False, error if is_known else RuntimeError(repr(error)))
    try:
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(outcome, pipe)
    finally:
        os._exit(0)


def _kill(pid: int) -> None:
    for process in reversed(descendants(pid)):
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    os.waitpid(pid, 0)
