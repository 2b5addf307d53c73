"""Films of a data set of segments: a folder for each split, no film in two of them, and the questions about each film."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from storm_hf.annotations.record import Annotation
from storm_hf.errors import ConfigurationError, DatasetError
from storm_hf.pipeline.workspace import hash_file
from storm_hf.settings import NonEmptyStr, PositiveInt, check_values
from storm_hf.thought_video.folder import file_stem
from storm_hf.thought_video.segment_questions import SegmentQuestion, SegmentSettings
from storm_hf.thought_video.segments import SegmentsGenerator, segment_id


FILM_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm", ".wmv")


@dataclass(frozen=True, kw_only=True)
class FilmSplit:
    """Films of a split, and the number of questions about them.

    Args:
        folder (`str`):
            Folder of the films, which may lie in folders of it.
        count (`int`):
            Questions, spread evenly over films and tasks.
    """

    folder: NonEmptyStr
    count: PositiveInt

    def __post_init__(self) -> None:
        check_values(self)

    def find(self) -> dict[str, Path]:
        """Find the films by their names, sorted. A name is the path in the folder without its suffix.

        Raises:
            DatasetError: If there is no film, or two have one name.
        """
        root = Path(self.folder).absolute()
        paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in FILM_SUFFIXES and path.is_file())
        if not paths:
            raise DatasetError(f"Expected films ({', '.join(FILM_SUFFIXES)}) in the folder {root} but found none.")
        films: dict[str, Path] = {}
        for path in paths:
            name = path.relative_to(root).with_suffix("").as_posix()
            if name in films:
                raise DatasetError(
                    f"Expected one film of the name {name} in {root} but got {films[name].name} and {path.name}."
                )
            films[name] = path
        return films


@dataclass(frozen=True, kw_only=True)
class FilmRecipe:
    """Questions about films without annotations.

    Args:
        splits (`Mapping[str, FilmSplit]`):
            From `train`, `validation` or `test` to its films.
        segments ([`SegmentSettings`], *optional*):
            Settings of the questions.
        name (`str`, *optional*, defaults to `"films"`):
            Name of the collection.
        license (`str`, *optional*, defaults to `"unknown"`):
            Licence of the films. Clips of an unknown licence are not published.

    Raises:
        ConfigurationError: If a value is out of its range, or the name of a split has a hyphen.
    """

    splits: Mapping[str, FilmSplit]
    segments: SegmentSettings = field(default_factory=SegmentSettings)
    name: NonEmptyStr = "films"
    license: NonEmptyStr = "unknown"

    def __post_init__(self) -> None:
        check_values(self)
        if unnamable := [name for name in self.splits if "-" in name or not name]:
            raise ConfigurationError(f"Expected names of splits without a hyphen but got {', '.join(unnamable)}.")

    def find(self) -> dict[str, dict[str, Path]]:
        """Find the films of each split.

        Raises:
            DatasetError: If a split has no film, or a film is in two splits, under whatever name.
        """
        found = {name: split.find() for name, split in self.splits.items()}
        _check_apart(found)
        return found

    def generator_of(self, split: str, num_frames: int = 12) -> SegmentsGenerator:
        """Make the generator of a split.

        Args:
            split (`str`):
                Name of the split.
            num_frames (`int`, *optional*, defaults to `12`):
                See [`SegmentsGenerator`].

        Raises:
            ConfigurationError: If the frames do not fit the tasks.
            DatasetError: If a split has no film, or a film is in two splits.
        """
        return SegmentsGenerator(self.find()[split], self.segments, num_frames)

    def annotations(self, split: str, folder: Path, seed_of: Callable[[str], int]) -> Iterator[Annotation]:
        """Draw the questions of a split without opening a film.

        Args:
            split (`str`):
                Name of the split.
            folder (`Path`):
                Folder of their clips, which [`SegmentsGenerator`] cuts.
            seed_of (`Callable[[str], int]`):
                Seed of a question, by its id.

        Raises:
            DatasetError: If a split has no film, or a film is in two splits.
        """
        films, tasks = list(self.find()[split]), self.segments.tasks
        for number in range(self.splits[split].count):
            task = tasks[number % len(tasks)]
            name = segment_id(split, task, number, films[number // len(tasks) % len(films)])
            drawn = SegmentQuestion.draw(task, seed_of(name), self.segments)
            yield Annotation(
                id=name,
                video=folder / f"{file_stem(name)}.mp4",
                question=drawn.question,
                options=drawn.options,
                answer=drawn.answer,
                license=self.license,
                source=self.name,
            )


def _check_apart(found: Mapping[str, Mapping[str, Path]]) -> None:
    """Refuse a film that is in two splits. Only files of one size are compared by their contents."""
    of_size: dict[int, list[tuple[str, Path]]] = {}
    for split, films in found.items():
        for path in films.values():
            of_size.setdefault(path.stat().st_size, []).append((split, path))
    for same in of_size.values():
        if len({split for split, _ in same}) == 1:
            continue
        first_of: dict[str, tuple[str, Path]] = {}
        for split, path in same:
            known, other = first_of.setdefault(hash_file(path), (split, path))
            if known != split:
                raise DatasetError(
                    f"Expected films of {split} that are in no other split but {path} is the same film as {other} of {known}. "
                    "Remove one of them: questions about films of the training would not test."
                )
