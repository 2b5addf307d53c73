"""State of the loopback Hub: repositories as commits over blobs, and what was asked of it."""

import hashlib
import re
import time
from dataclasses import dataclass, field
from threading import RLock
from typing import Any


_LARGE = re.compile(r".*\.(safetensors|bin|parquet|arrow|mp4|zip|png)$")
_LARGEST_REGULAR = 10 * 2**20


def git_oid(data: bytes) -> str:
    """The name git gives to a blob."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass(frozen=True)
class Entry:
    """A file of a commit: the key of its bytes, and the name git gives it."""

    key: str
    oid: str
    is_large: bool


@dataclass
class Repository:
    """Commits and the names that point to them. A tag is the ref `tags/<name>`."""

    kind: str
    id: str
    is_private: bool
    sdk: str | None = None
    commits: dict[str, dict[str, Any]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.commit("main", {}, "initial commit")

    def commit(self, ref: str, files: dict[str, Entry], message: str) -> str:
        """Add a commit to a branch."""
        parent = self.refs.get(ref)
        sha = hashlib.sha1(f"{self.id}{parent}{message}{time.time_ns()}".encode()).hexdigest()
        date = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
        self.commits[sha] = {"files": files, "message": message, "parent": parent, "date": date}
        self.refs[ref] = sha
        return sha

    def resolve(self, revision: str) -> str | None:
        """The commit of a branch, a tag or a hash."""
        sha = self.refs.get(revision) or self.refs.get(f"tags/{revision}")
        return sha or (revision if revision in self.commits else None)

    def split_revision(self, path: str) -> tuple[str | None, str]:
        """Cut `<revision>/<file>`; a revision may hold slashes."""
        parts = path.split("/")
        for count in range(1, len(parts) + 1):
            if sha := self.resolve("/".join(parts[:count])):
                return sha, "/".join(parts[count:])
        return None, path

    def files(self, revision: str = "main") -> dict[str, Entry]:
        """The files of a revision by path."""
        sha = self.resolve(revision)
        return self.commits[sha]["files"] if sha else {}


@dataclass
class Store:
    """All repositories, the tokens that may see private ones, and a record of every upload.

    Args:
        tokens (`set[str]`):
            Who gives one of these sees everything; who gives none sees what is public.
        readers (`set[str]`):
            Tokens among them that may not write.
        failures (`dict[str, list[int]]`):
            From the method of a request and a part of its path, such as `"POST /commit/"`, to the statuses that it is
            answered with before it is answered as it should be.
        bytes_until_cut (`int`, *optional*):
            The upload that goes beyond so many bytes is cut in the middle, and what comes after it is refused, until
            this is None again.
    """

    tokens: set[str] = field(default_factory=lambda: {"hf_test"})
    readers: set[str] = field(default_factory=set)
    failures: dict[str, list[int]] = field(default_factory=dict)
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    uploads: list[str] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    bytes_until_cut: int | None = None
    lock: RLock = field(default_factory=RLock)

    def next_failure(self, method: str, path: str) -> int | None:
        """The status that a request fails with this time, if it does."""
        for key, statuses in self.failures.items():
            asked, _, part = key.partition(" ")
            if statuses and asked == method and part in path:
                return statuses.pop(0)
        return None

    def is_large(self, path: str, size: int) -> bool:
        """Return True if a file goes through the storage of large files."""
        return bool(_LARGE.match(path)) or size > _LARGEST_REGULAR

    def keep_small(self, data: bytes) -> Entry:
        """Keep a file that came within a commit."""
        oid = git_oid(data)
        self.blobs[oid] = data
        return Entry(oid, oid, is_large=False)

    def large(self, oid: str) -> Entry:
        """Name a file that was uploaded before the commit."""
        return Entry(oid, git_oid(oid.encode()), is_large=True)

    def read(self, id: str, path: str, kind: str = "dataset", revision: str = "main") -> bytes:
        """The bytes of a file."""
        return self.blobs[self.repositories[kind, id].files(revision)[path].key]
