"""Thought videos made by another program, a service or a person, in a folder, and clips cut to the part that a question may see.

root/  <id>.mp4  <id>.json      beside a clip, what is known of it: prompt, seed, generator, revision, license

Axes: T frames, H height, W width.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from storm_hf.annotations.record import Annotation
from storm_hf.errors import DatasetError, MachineError, VideoReadError, is_machine_fault
from storm_hf.thought_video.clip_part import end_of, frame_times, is_before, read_frames
from storm_hf.thought_video.record import Rejected, ThoughtVideo
from storm_hf.video.write import write_timed_video


_PLAIN_NAME = re.compile(r"\w[\w.-]{0,99}", re.ASCII)


@dataclass(frozen=True)
class Sidecar:
    """Metadata of a clip made elsewhere. Omitted fields are the generator's own.

    Args:
        prompt (`str`, *optional*):
            Prompt of its generator.
        seed (`int`, *optional*):
            Seed of its generator.
        generator (`str`, *optional*):
            Name of its generator.
        revision (`str`, *optional*):
            The version of that.
        license (`str`, *optional*):
            Licence of the clip.
    """

    prompt: str | None = None
    seed: int | None = None
    generator: str | None = None
    revision: str | None = None
    license: str | None = None

    @classmethod
    def read(cls, path: Path) -> "Sidecar":
        """Read the JSON file beside a clip, if there is one. Keys that this class does not know are for others.

        Raises:
            DatasetError: If it is no JSON object, or a value has another type.
        """
        if not path.exists():
            return cls()
        known = {field.name: int if field.name == "seed" else str for field in fields(cls)}
        content = _json_object(path)
        values = {name: content[name] for name in known if content.get(name) is not None}
        for name, value in values.items():
            if type(value) is not known[name]:
                raise DatasetError(f"Expected {name} of {path} to be {known[name].__name__} but got {value!r}.")
        return cls(**values)


class FolderGenerator:
    """Takes the thought video of a question from a folder.

    Args:
        root (`str` or `os.PathLike`):
            The folder. The clip of a question is `<id>.mp4`, or `<file_stem(id)>.mp4` where the id is no file name.
        mapping (`str` or `os.PathLike`, *optional*):
            A JSON file `{"id": "path/of/clip.mp4"}` that says where each clip lies in the folder instead.
        name (`str`, *optional*, defaults to `"unknown"`):
            Generator of clips that do not name their own.
        revision (`str`, *optional*, defaults to `"unknown"`):
            The version of that.
        license (`str`, *optional*, defaults to `"unknown"`):
            Licence of the clips, where they do not say their own.

    Raises:
        DatasetError: If the folder does not exist, or the mapping is not from ids to paths.
    """

    source = "folder"

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        mapping: str | os.PathLike[str] | None = None,
        name: str = "unknown",
        revision: str = "unknown",
        license: str = "unknown",
    ) -> None:
        self.root = Path(root).absolute()
        self.name = name
        self.revision = revision
        self.license = license
        if not self.root.is_dir():
            raise DatasetError(f"Expected a folder of thought videos at {root} but there is none.")
        self._path_of = None if mapping is None else _checked_mapping(Path(mapping))

    def generate(self, annotation: Annotation, *, prompt: str = "", seed: int) -> ThoughtVideo | Rejected:
        """Find the clip of a question.

        Args:
            annotation ([`Annotation`]):
                Its id says which clip.
            prompt (`str`, *optional*, defaults to `""`):
                Not looked at; the clip's own is recorded, where it is known.
            seed (`int`):
                Recorded where the clip's own is not known.

        Returns:
            [`ThoughtVideo`] with the path of its file, or [`Rejected`] where there is none, it lies outside of the folder,
            cannot be read, or what is said beside it is malformed.
        """
        path = self._clip_of(annotation.id)
        if not self.root.is_dir():
            raise MachineError(
                f"{self.root} was there before and is gone. Bring it back (is its disk mounted?) and go on."
            )
        if path is None or not path.is_file():
            return Rejected(f"missing: {self.root} holds no thought video of {annotation.id!r}")
        if not path.resolve().is_relative_to(self.root.resolve()):
            return Rejected(f"outside: the thought video of {annotation.id!r} lies outside of {self.root}")
        try:
            return self._record(annotation, path, seed)
        except VideoReadError as error:
            return Rejected.of(error)
        except DatasetError as error:
            return Rejected(f"malformed: {error}")

    def _clip_of(self, name: str) -> Path | None:
        if self._path_of is None:
            return self._named_by(name)
        return self.root / self._path_of[name] if name in self._path_of else None

    def _named_by(self, name: str) -> Path:
        """The clip under the id itself where that is a file name and there is such a file, else under its `file_stem`."""
        plain = self.root / f"{name}.mp4"
        return plain if _PLAIN_NAME.fullmatch(name) and plain.is_file() else self.root / f"{file_stem(name)}.mp4"

    def _record(self, annotation: Annotation, path: Path, seed: int) -> ThoughtVideo:
        known = Sidecar.read(path.with_suffix(".json"))
        times = frame_times(path)
        return ThoughtVideo(
            fps=round(len(times) / end_of(times), 3) if len(times) > 1 else 1.0,
            source=self.source,
            generator=known.generator or self.name,
            generator_revision=known.revision or self.revision,
            license=known.license or self.license,
            seed=seed if known.seed is None else known.seed,
            prompt=known.prompt or "",
            path=path,
            seen_until_seconds=annotation.time_seconds,
        )


def _checked_mapping(path: Path) -> Mapping[str, str]:
    content = _json_object(path)
    for name, clip in content.items():
        if not isinstance(clip, str):
            raise DatasetError(f"Expected {path} to map the id {name!r} to the path of a clip but got {clip!r}.")
    return content


def _json_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        if is_machine_fault(error):
            raise MachineError(f"{path} cannot be read on this machine now: {error}.") from error
        raise DatasetError(f"Expected a JSON object in {path} but it cannot be read: {error}.") from error
    if not isinstance(content, dict):
        raise DatasetError(f"Expected a JSON object in {path} but got a {type(content).__name__}.")
    return content


_FRAMES_AT_ONCE = 64  # held in memory, however long the clip is
# Names that every file system takes. Some take `Clip` and `clip` for one file, and Windows has devices of these names.
_SAFE_NAME = re.compile(r"(?!(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$))[a-z0-9_](?:[a-z0-9_.-]{0,98}[a-z0-9_-])?")
_LEGIBLE_NAME = re.compile(r"\w[\w-]{0,79}", re.ASCII)


def question_clip(annotation: Annotation, thought: ThoughtVideo, folder: Path) -> Path:
    """Cut the clip to what a question with this thought video may be asked about.

    It begins where the part of the question begins, and ends where that part ends or its thought video begins, whatever comes
    first. A clip is cut by encoding these frames again, since a cut without encoding keeps pictures
    from outside of it.

    Args:
        annotation ([`Annotation`]):
            The question.
        thought ([`ThoughtVideo`]):
            Says until when the clip may be seen.
        folder (`Path`):
            Folder of a cut clip, under a name made of its source and its interval. An existing one is kept.

    Returns:
        `Path`: The clip itself where all of it may be seen, else the cut one.

    Raises:
        VideoReadError: If the clip cannot be read, or nothing of it may be seen.
    """
    until = min(_or_infinite(annotation.end_seconds), _or_infinite(thought.seen_until_seconds))
    start = annotation.start_seconds or 0.0
    if start <= 0.0 and until == np.inf:
        return annotation.video
    times = frame_times(annotation.video)
    seen = np.flatnonzero(is_before(times, until) & ~is_before(times, start))
    if len(seen) == len(times):
        return annotation.video
    if len(seen) == 0:
        raise VideoReadError(f"{annotation.video} shows no frame {_words_of_part(start, until)}.")
    path = Path(folder) / f"{file_stem(annotation.id)}{_name_of_part(start, until)}.mp4"
    if not path.exists():
        write_timed_video(path, _frames(annotation.video, seen, until), times[seen] - times[seen[0]])
    return path


def file_stem(name: str) -> str:
    """Return a file name for an id: the id itself where every file system takes it and keeps it distinct, else with a hash.

    `Clip` and `clip` are one file on macOS and Windows, so that an id with capital letters gets a hash of it.
    """
    if _SAFE_NAME.fullmatch(name):
        return name
    digest = sha256(name.encode()).hexdigest()[:20]
    return f"{name}-{digest}" if _LEGIBLE_NAME.fullmatch(name) else digest


def _or_infinite(seconds: float | None) -> float:
    return np.inf if seconds is None else seconds


def _name_of_part(start: float, until: float) -> str:
    beginning = f"-from-{start:.3f}s" if start > 0 else ""
    return beginning + (f"-until-{until:.3f}s" if until < np.inf else "")


def _words_of_part(start: float, until: float) -> str:
    if start <= 0:
        return f"before {until:.3f} s"
    return f"from {start:.3f} s on" + (f" and before {until:.3f} s" if until < np.inf else "")


def _frames(path: Path, positions: np.ndarray, until: float) -> Iterator[np.ndarray]:
    for first in range(0, len(positions), _FRAMES_AT_ONCE):
        yield from read_frames(path, positions[first : first + _FRAMES_AT_ONCE], before=until)
