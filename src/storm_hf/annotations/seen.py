"""Set of the ids seen so far, in a temporary SQLite file, so that memory does not grow with the collection."""

import sqlite3
from contextlib import closing
from hashlib import blake2b
from types import TracebackType


class SeenIds:
    """A set of ids that lies on disk as soon as it grows. It goes away when it is closed."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)  # an empty name is a temporary file
        for statement in (
            "PRAGMA journal_mode = OFF",
            "PRAGMA synchronous = OFF",
            "CREATE TABLE seen (id BLOB PRIMARY KEY) WITHOUT ROWID",
            "BEGIN",
        ):
            self._database.execute(statement)

    def add(self, name: str) -> bool:
        """Remember an id.

        Returns:
            `bool`: Whether it is new.
        """
        key = blake2b(name.encode(), digest_size=16).digest()
        with closing(self._database.execute("INSERT OR IGNORE INTO seen VALUES (?)", (key,))) as cursor:
            return cursor.rowcount == 1

    def __enter__(self) -> "SeenIds":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._database.close()
