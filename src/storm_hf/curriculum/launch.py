"""A training script as processes of its own: shown and logged while it runs, and asked to save and stop by Ctrl-C."""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, Popen
from types import FrameType
from typing import Any

import psutil  # comes with accelerate
import yaml

from storm_hf.errors import ConfigurationError
from storm_hf.processes import receiving_stops


_EXIT_CODE_FILE = "STORM_EXIT_CODE_FILE"


@contextmanager
def exit_code_passed_on() -> Iterator[None]:
    """Leave the exit code of a script where `run_logged` finds it: of a script that failed, accelerate always makes 1."""
    try:
        yield
    except SystemExit as ending:
        path = os.environ.get(_EXIT_CODE_FILE)
        if path and isinstance(ending.code, int):
            Path(path).write_text(str(ending.code), encoding="utf-8")
        raise


@dataclass(frozen=True)
class Ending:
    """Outcome of a stage.

    Args:
        exit_code (`int`):
            Of the script where it chose one, else of the launcher, as a shell counts: 0, or what went wrong, or 128 and the
            signal that killed it.
        is_interrupted (`bool`, *optional*, defaults to `False`):
            Whether the user asked it to stop.
    """

    exit_code: int
    is_interrupted: bool = False


@dataclass(frozen=True)
class AccelerateLauncher:
    """Starts scripts with `accelerate launch`, a new one for each stage, so that no stage inherits memory from another.

    Args:
        scripts (`Path`):
            Folder of `base.py`, `align.py`, `answer.py` and `grpo.py`.
        arguments (`tuple[str, ...]`, *optional*):
            Arguments of `accelerate launch`, such as `("--config_file", "trainers/accelerate/zero3.yaml")`.
        command (`tuple[str, ...]`, *optional*):
            Command that starts them.
        runner (`tuple[str, ...]`, *optional*):
            Words before a script, which run it so that an intended error ends in one sentence.
    """

    scripts: Path
    arguments: tuple[str, ...] = ()
    command: tuple[str, ...] = (sys.executable, "-m", "accelerate.commands.launch", "--quiet")
    runner: tuple[str, ...] = ("--module", "storm_hf.cli.script")

    def __call__(self, kind: str, config: Path, log: Path) -> Ending:
        """Run the script of a stage to its end.

        Args:
            kind (`str`):
                Names the script.
            config (`Path`):
                YAML file with all its arguments.
            log (`Path`):
                Log file. Its output is shown and appended here.
        """
        script = str(self.scripts / f"{kind}.py")
        return run_logged([*self.command, *self.arguments, *self.runner, script, "--config", str(config)], log)


def run_logged(command: list[str], log: Path | None = None) -> Ending:
    """Run a command; what it prints goes to the screen, and to the end of a file if there is one.

    Ctrl-C, or SIGTERM, asks the processes that train to save and stop; the launcher above them would kill them before they
    have. A second Ctrl-C ends all at once.
    """
    with tempfile.TemporaryDirectory(prefix="storm-launch-") as folder:
        passed_on = Path(folder) / "exit_code"
        ending = _run(command, log, {"PYTHONUNBUFFERED": "1", _EXIT_CODE_FILE: str(passed_on)})
        if ending.exit_code and passed_on.exists():
            return replace(ending, exit_code=int(passed_on.read_text(encoding="utf-8")) or ending.exit_code)
    return ending


def _run(command: list[str], log: Path | None, variables: Mapping[str, str]) -> Ending:
    stdout, stderr = (None, None) if log is None else (PIPE, STDOUT)
    environment = {**os.environ, **variables}
    interrupts = _Interrupts()
    with (
        receiving_stops(interrupts.receive),  # a signal while the launcher starts would leave a stage running
        Popen(
            command, stdin=DEVNULL, env=environment, stdout=stdout, stderr=stderr, start_new_session=True
        ) as launcher,
    ):
        interrupts.pass_on_to(launcher)
        if log is not None:
            _show_and_log(launcher, log)
        exit_code = launcher.wait()
    return Ending(exit_code if exit_code >= 0 else 128 - exit_code, is_interrupted=bool(interrupts.came))


def _show_and_log(launcher: Popen[bytes], log: Path) -> None:
    assert launcher.stdout is not None  # it is a pipe
    with log.open("ab") as file:
        while printed := os.read(launcher.stdout.fileno(), 1 << 16):
            for sink in (file, sys.stdout.buffer):
                sink.write(printed)
                sink.flush()


class _Interrupts:
    """Ctrl-C and SIGTERM while a launcher starts and runs: the processes that train are asked to save and stop."""

    def __init__(self) -> None:
        self.came: list[int] = []
        self._launcher: Popen[bytes] | None = None
        self._is_passed_on = False

    def pass_on_to(self, launcher: Popen[bytes]) -> None:
        """Name the launcher once it has started; what came before is passed on now."""
        self._launcher = launcher
        if self.came and not self._is_passed_on:  # one that comes in this very moment is passed on by `receive`
            self._pass_on(launcher)

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        self.came.append(number)
        if self._launcher is not None:
            self._pass_on(self._launcher)

    def _pass_on(self, launcher: Popen[bytes]) -> None:
        stop = _end_at_once if self._is_passed_on else _ask_to_stop
        self._is_passed_on = True
        stop(launcher)


def _ask_to_stop(launcher: Popen[bytes]) -> None:
    """Press Ctrl-C in each process that trains: the children of the launcher, but not their data loaders."""
    trainers = _children(launcher)
    for trainer in trainers:
        _send(trainer, signal.SIGINT)
    if not trainers and launcher.poll() is None:  # nothing has begun
        os.killpg(launcher.pid, signal.SIGTERM)


def _end_at_once(launcher: Popen[bytes]) -> None:
    trainers = _children(launcher, recursive=True)
    if launcher.poll() is None:
        launcher.kill()
    for trainer in trainers:
        _send(trainer, signal.SIGKILL)


def _children(launcher: Popen[bytes], recursive: bool = False) -> list[psutil.Process]:
    try:
        return psutil.Process(launcher.pid).children(recursive=recursive)
    except psutil.NoSuchProcess:
        return []


def _send(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:  # it ended while we looked
        return


@dataclass(frozen=True)
class RunCommand:
    """Options of the command line of a curriculum.

    Args:
        config (`Path`):
            The recipe.
        overrides (`Mapping[str, Any]`):
            Arguments that replace those of every stage.
        launch_arguments (`tuple[str, ...]`):
            Arguments of `accelerate launch`.
    """

    config: Path
    overrides: Mapping[str, Any]
    launch_arguments: tuple[str, ...]

    @classmethod
    def parse(cls, arguments: Sequence[str], description: str | None = None) -> "RunCommand":
        """Take a command line apart.

        Args:
            arguments (`Sequence[str]`):
                `--config RECIPE [--NAME VALUE ...] [-- ACCELERATE_ARGUMENT ...]`.
            description (`str`, *optional*):
                Description shown by `--help`.

        Raises:
            ConfigurationError: If an argument has no name, or not one value.
        """
        end = arguments.index("--") if "--" in arguments else len(arguments)
        parser = argparse.ArgumentParser(
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            usage="%(prog)s --config RECIPE [--NAME VALUE ...] [-- ACCELERATE_ARGUMENT ...]",
            allow_abbrev=False,
        )
        parser.add_argument("--config", type=Path, required=True, metavar="RECIPE", help="YAML file with the stages")
        own, others = parser.parse_known_args(list(arguments[:end]))
        return cls(own.config, _pairs(others), tuple(arguments[end + 1 :]))


def _pairs(arguments: Sequence[str]) -> dict[str, Any]:
    """Read `--name value` and `--name=value`, the values as YAML does."""
    words = [word for argument in arguments for word in _split(argument)]
    names, values = words[::2], words[1::2]
    is_paired = len(names) == len(values) and not any(value.startswith("--") for value in values)
    if not is_paired or not all(name.startswith("--") for name in names):
        raise ConfigurationError(
            f"Expected arguments for all stages as `--name value`, got {' '.join(arguments)!r}. Those of `accelerate launch` "
            "come after `--`."
        )
    return {name.removeprefix("--"): yaml.safe_load(value) for name, value in zip(names, values, strict=True)}


def _split(argument: str) -> list[str]:
    return argument.split("=", 1) if argument.startswith("--") and "=" in argument else [argument]
