"""The record of a dry run: what a push would publish."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storm_hf.hub.known_files import sentence_on_left_out


@dataclass(frozen=True)
class Preview:
    """Preview of a push. Nothing was sent.

    Args:
        repo (`str`):
            The repository that it would be published in.
        card (`str`):
            The `README.md`.
        files (`tuple[tuple[str, int], ...]`):
            Path in the repository and size in bytes of each file, the card among them. Sizes of shards that are not written
            yet are those of their parts.
        left_out (`tuple[str, ...]`):
            Files of the folder that stay here.
        notes (`tuple[str, ...]`, *optional*):
            Further notes to read before it is published, one sentence each.
    """

    repo: str
    card: str
    files: tuple[tuple[str, int], ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def listing(self) -> list[str]:
        """The files with their sizes, and the card, line by line."""
        return [*(f"{readable_size(size):>12}  {name}" for name, size in self.files), "", *self.card.splitlines()]

    @property
    def summary(self) -> list[str]:
        """Summary for people, line by line."""
        left_out = [sentence_on_left_out(self.left_out)] if self.left_out else []
        return [*left_out, *self.notes, f"Dry run: nothing was sent. {len(self.files)} files would go to {self.repo}."]


def size_of(content: Any) -> int:
    """The size in bytes of a text, of bytes, or of the file of a path."""
    if isinstance(content, Path):
        return content.stat().st_size
    return len(content.encode() if isinstance(content, str) else content)


def readable_size(num_bytes: int) -> str:
    """Write a number of bytes as people read it."""
    size, unit = float(num_bytes), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{num_bytes} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
