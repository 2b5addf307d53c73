"""Paths of shards. A file that exists is complete."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from storm_hf.pipeline.lock import locked


LOCKS = ".locks"


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
        return locked(self.root / LOCKS / step.replace("/", "-"), name, wait=wait)

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
