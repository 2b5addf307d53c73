"""The allow list of a push: files of known kinds, and those that were asked for. Everything else is left out, and named."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from storm_hf.errors import PublicationError


_NAME = r"[\w][\w.-]*"
# What makes a model or an adapter. Of an earlier push, these go if they are not sent again.
_OF_A_MODEL = re.compile(
    r"(config|generation_config|adapter_config|storm_config)\.json"
    rf"|{_NAME}\.safetensors(\.index\.json)?|\w+_storm\.py"
    rf"|decoder/{_NAME}\.(json|safetensors)|thoughts/{_NAME}\.(npz|json|png)"
    r"|((\w+_)?(pre)?processor_config|chat_template)\.json|(additional_chat_templates/)?[\w.-]+\.jinja"
    r"|(tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab)\.json|merges\.txt|vocab\.txt"
    rf"|(tokenizer|spiece|spm|sentencepiece\.bpe)\.model|{_NAME}\.tiktoken"
)
_BESIDE_A_MODEL = re.compile(rf"(README|LICENSE|NOTICE)(\.md|\.txt)?|storm_card\.json|assets/{_NAME}\.(png|jpe?g|gif)")
_MOST_NAMED = 12


@dataclass(frozen=True)
class Selection:
    """Files of a folder that are published, and those that are left out.

    Args:
        published (`dict[str, Path]`):
            From the path in the repository to the file.
        left_out (`tuple[str, ...]`):
            Paths of all other files, relative to the folder.
    """

    published: dict[str, Path]
    left_out: tuple[str, ...]


def is_of_a_model(name: str) -> bool:
    """Tell whether a path in a repository is a known part of a model or of an adapter."""
    return _OF_A_MODEL.fullmatch(name) is not None


def select_model_files(folder: Path, include: Sequence[str] = ()) -> Selection:
    """Select what is published of the folder of a checkpoint.

    Args:
        folder (`Path`):
            The folder, resolved.
        include (`Sequence[str]`, *optional*):
            Patterns, as shells have them, of further files.

    Raises:
        PublicationError: If a pattern matches nothing, or a published file is a link that leads out of the folder.
    """
    names = list(files_of(folder))
    further = included(names, include)
    published = [name for name in names if _is_known(name) or name in further]
    return Selection({name: inside(folder, name) for name in published}, _others(names, published))


def included(names: Iterable[str], include: Sequence[str], never: tuple[str, ...] = ()) -> set[str]:
    """Find the files that patterns ask for. Hidden files are not among them.

    Args:
        names (`Iterable[str]`):
            Paths of files, relative to their folder.
        include (`Sequence[str]`):
            The patterns.
        never (`tuple[str, ...]`, *optional*):
            Beginnings of paths that no pattern matches.

    Raises:
        PublicationError: If a pattern matches nothing.
    """
    visible = [name for name in names if not _is_hidden(name) and not name.startswith(never)]
    found: set[str] = set()
    for pattern in include:
        matching = {name for name in visible if fnmatchcase(name, pattern)}
        if not matching:
            raise PublicationError(
                f"Expected a file that may be published for --include {pattern} but none matches. Patterns are relative to the "
                "folder; hidden files are never published."
            )
        found |= matching
    return found


def files_of(folder: Path) -> Iterator[str]:
    """Yield the paths of all files of a folder, relative to it, in order."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix()


def inside(folder: Path, name: str) -> Path:
    """Return the file of a name in a folder, if it lies there. The cache of the Hub, whose files are links, counts as one folder.

    Raises:
        PublicationError: If it is a link that leads elsewhere.
    """
    path = folder / name
    place = path.resolve()
    blobs = folder.parent.parent / "blobs"
    is_cached = folder.parent.name == "snapshots" and place.is_relative_to(blobs)
    if not (place.is_relative_to(folder) or is_cached):
        raise PublicationError(
            f"Expected files of {folder.name} but {name} is a link that leads out of it. Copy the file there, or remove the link."
        )
    return path


def sentence_on_left_out(names: Sequence[str], option: str = "--include PATTERN") -> str:
    """Name the files that are left out; those of a subfolder are counted.

    Args:
        names (`Sequence[str]`):
            Their paths, relative to the folder.
        option (`str`, *optional*, defaults to `"--include PATTERN"`):
            The setting by which more is published.
    """
    folders = Counter(name.partition("/")[0] + "/" if "/" in name else name for name in names)
    named = [f"{name} ({count})" if name.endswith("/") else name for name, count in folders.items()]
    more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    files = "1 file" if len(names) == 1 else f"{len(names)} files"
    return f"left out: {files}: {', '.join(named[:_MOST_NAMED])}{more}. {option} publishes further files."


def _others(names: Iterable[str], published: Sequence[str]) -> tuple[str, ...]:
    known = set(published)
    return tuple(name for name in names if name not in known)


def _is_known(name: str) -> bool:
    return is_of_a_model(name) or _BESIDE_A_MODEL.fullmatch(name) is not None


def _is_hidden(name: str) -> bool:
    return any(
        part.startswith(".") or part in ("__pycache__",) or part.endswith(".unfinished") for part in name.split("/")
    )


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


def size_of(content: str | bytes | Path) -> int:
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
