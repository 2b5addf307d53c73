"""The loopback Hub of a row: it goes away, answers with errors or cuts uploads when it is told to."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.faults.files import Hashes, files_of, hash_of
from tests.hub.server import CutConnection, serve
from tests.hub.store import Store


@dataclass
class FaultyStore(Store):
    """A Hub with faults.

    Args:
        is_away (`bool`, *optional*, defaults to `False`):
            Whether every connection ends without an answer.
        status (`int`, *optional*):
            What every request is answered with.
    """

    is_away: bool = False
    status: int | None = None

    def next_failure(self, method: str, path: str) -> int | None:
        """Fail a request where that was asked for."""
        if self.is_away:
            raise CutConnection(path)
        return self.status or super().next_failure(method, path)

    def recover(self) -> None:
        """End all faults."""
        self.is_away, self.status, self.bytes_until_cut = False, None, None


_OPEN: list[FaultyStore] = []


@contextmanager
def opened(port: int) -> Iterator[FaultyStore]:
    """Serve an empty Hub to the commands of this process."""
    store = FaultyStore()
    _OPEN.append(store)
    with serve(store, port):
        yield store
    _OPEN.pop()


def store() -> FaultyStore:
    """Return the Hub that is served."""
    return _OPEN[-1]


def published(folder: Path) -> Hashes:
    """Hash of all that is visible on the Hub, which must be all or nothing."""
    found = {}
    for (_, id), repository in store().repositories.items():
        files = {name: entry.oid for name, entry in sorted(repository.files().items()) if name != ".gitattributes"}
        if files:
            found[id] = hash_of(repr(files).encode())
    return found


def published_once(folder: Path) -> Hashes:
    """The same, and whether a file was sent twice."""
    uploads = store().uploads
    return {**published(folder), "sent twice": str(len(uploads) - len(set(uploads)))}


def pulled(folder: Path) -> Hashes:
    """Videos that were unpacked in the cache, and the rows that were read."""
    cached = files_of(
        folder.parent / "hf" / "storm"
    )  # videos/REPOSITORY/COMMIT/..., whose commit is another in each run
    return {**{"/".join(name.split("/")[3:]): value for name, value in cached.items()}, **files_of(folder)}
