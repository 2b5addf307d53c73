"""Folders of a pipeline, and the steps that fill them: a shard that exists is complete and never made again.

fingerprint.json    {"encode": {"hash": "…", "parameters": {"encoder": "…", "rows_per_shard": 512}}}
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, Generic, TypeVar

from storm_hf.atomic import read_json, write_json, written_atomically
from storm_hf.errors import StaleWorkError
from storm_hf.pipeline.lock import locked
from storm_hf.settings import check_folder


_LOCKS = ".locks"
TaskT = TypeVar("TaskT")


@dataclass(frozen=True)
class Workspace:
    """A folder with one folder of shards per step. Any number of processes may work in it.

    Args:
        root (`Path`):
            The folder. It need not exist yet.
    """

    root: Path

    def shard(self, step: str, name: str) -> Path:
        """Path of a shard, whether it exists or not."""
        return self.root / step / name

    def shards(self, step: str) -> list[Path]:
        """The complete shards of a step, sorted by name."""
        return sorted(path for path in (self.root / step).glob("*") if not path.name.startswith("."))

    def locked(self, step: str, name: str, *, wait: bool = True) -> AbstractContextManager[bool]:
        """Hold the lock of a shard; see `pipeline.lock.locked`."""
        return locked(self.root / _LOCKS / step.replace("/", "-"), name, wait=wait)

    @contextmanager
    def claimed(self, step: str, name: str, *, wait: bool = True) -> Iterator[Path | None]:
        """Yield the path of a shard that no other process writes, or None if it exists or another process writes it.

        Args:
            step (`str`):
                Name of the step.
            name (`str`):
                Name of the shard.
            wait (`bool`, *optional*, defaults to `True`):
                Whether to wait for the other process, which completes the shard or ends.
        """
        shard = self.shard(step, name)
        if shard.exists():
            yield None
            return
        with self.locked(step, name, wait=wait) as is_mine:
            if not is_mine or shard.exists():
                yield None
                return
            self.remove_unfinished(step, name)
            yield shard

    def remove_unfinished(self, step: str, name: str = "*") -> None:
        """Remove what a killed run left half written of a shard, or of all. No other process may be writing it."""
        for path in (self.root / step).glob(f".{name}.*unfinished"):
            path.unlink(missing_ok=True)


FILE_NAME = "fingerprint.json"
_ABSENT = "nothing"


def claim(folder: Path, step: str, parameters: Mapping[str, Any]) -> None:
    """Say in a folder what a step is made with, or make sure that it is the same as before.

    Args:
        folder (`Path`):
            The workspace.
        step (`str`):
            Name of the step.
        parameters (`Mapping[str, Any]`):
            Everything that changes what the step writes, as JSON knows it.

    Raises:
        ConfigurationError: If the workspace, or a folder above it, is a file.
        StaleWorkError: If the step was begun with other parameters; the message names each with its old and new value.
    """
    check_folder(folder, "the output")
    new = json.loads(json.dumps(parameters))
    if _is_claimed(folder, step, new):
        return  # nothing is written: the folder may be read-only
    with locked(Path(folder) / _LOCKS / "fingerprint", FILE_NAME):
        if not _is_claimed(folder, step, new):
            content = {**read_fingerprint(folder), step: {"hash": hash_parameters(new), "parameters": new}}
            write_json(Path(folder) / FILE_NAME, content)


def _is_claimed(folder: Path, step: str, new: Mapping[str, Any]) -> bool:
    """Check whether a step was begun, and raise if that was with other parameters."""
    known = read_fingerprint(folder)
    if step not in known:
        return False
    if known[step]["hash"] != hash_parameters(new):
        changes = "; ".join(_differences(known[step]["parameters"], new))
        raise StaleWorkError(
            f"{folder} holds work of the step {step!r} that was made with other parameters: {changes}. Use the old "
            "values, choose another folder, or remove this one."
        )
    return True


def read_fingerprint(folder: Path) -> dict[str, Any]:
    """Read the parameters of each step of a folder; empty if none has begun."""
    path = Path(folder) / FILE_NAME
    return read_json(path) if path.exists() else {}


def hash_parameters(parameters: Mapping[str, Any]) -> str:
    """Hash parameters so that their order does not matter."""
    return sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    old, new = _flatten(old), _flatten(new)
    changed = [name for name in sorted({*old, *new}) if old.get(name, _ABSENT) != new.get(name, _ABSENT)]
    return [f"{name} was {old.get(name, _ABSENT)} and is now {new.get(name, _ABSENT)}" for name in changed]


def _flatten(parameters: object, path: str = "") -> dict[str, Any]:
    """Name nested parameters by their path: `{"sizes": [{"height": 28}]}` becomes `{"sizes.0.height": 28}`."""
    named: Mapping[Any, Any] = {}
    if isinstance(parameters, Mapping):
        named = parameters
    elif isinstance(parameters, list) and any(isinstance(value, Mapping) for value in parameters):
        named = dict(enumerate(parameters))
    if not named:
        return {path: parameters} if path else {}
    flat: dict[str, Any] = {}
    for name, value in named.items():
        flat.update(_flatten(value, f"{path}.{name}" if path else str(name)))
    return flat


def hash_file(path: Path) -> str:
    """SHA-256 of a file's contents, read in chunks."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def folder_revision(folder: Path) -> str:
    """Name the files of a folder: twelve digits of the hash of their names and contents."""
    digest = sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()} {hash_file(path)}\n".encode())
    return digest.hexdigest()[:12]


@dataclass(frozen=True)
class Step(Generic[TaskT]):
    """Turns tasks into shards. A stopped run goes on with the first shard that is missing.

    Several processes may run one step at once: each shard is written by one of them, and each run ends when all shards are
    there.

    Args:
        name (`str`):
            The step's folder in the workspace.
        write (`Callable[[TaskT, Path], None]`):
            Does one task and writes its result to a path. The result depends on the task and the parameters alone.
        parameters (`Mapping[str, Any]`, *optional*):
            Everything besides the tasks that changes what is written. They are recorded, and others are refused later.
    """

    name: str
    write: Callable[[TaskT, Path], None]
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def run(
        self,
        workspace: Workspace,
        tasks: Mapping[str, TaskT],
        on_finished: Callable[[Path], None] | None = None,
    ) -> list[Path]:
        """Write the shards that are missing.

        Args:
            workspace ([`Workspace`]):
                Folder of the shards.
            tasks (`Mapping[str, TaskT]`):
                From the name of a shard to what it is made of.
            on_finished (`Callable[[Path], None]`, *optional*):
                Called once per shard when it is complete, in order, except for shards written by another process. Progress bars use it.

        Returns:
            `list[Path]`: All shards, in the order of the tasks.

        Raises:
            StaleWorkError: If the step was begun here with other parameters.
        """
        claim(workspace.root, self.name, self.parameters)
        missing = dict(tasks)
        for is_patient in (
            False,
            True,
        ):  # first the shards without a writer, then those that others have not completed
            for name, task in list(missing.items()):
                if self._complete(workspace, name, task, is_patient):
                    del missing[name]
                    if on_finished is not None:
                        on_finished(workspace.shard(self.name, name))
        return [workspace.shard(self.name, name) for name in tasks]

    def _complete(self, workspace: Workspace, name: str, task: TaskT, is_patient: bool) -> bool:
        """Write a shard unless it is there or, for the impatient, being written; return whether it is there now."""
        with workspace.claimed(self.name, name, wait=is_patient) as shard:
            if shard is not None:
                with written_atomically(shard) as unfinished:
                    self.write(task, unfinished)
        return workspace.shard(self.name, name).exists()
