"""Thought videos that were made elsewhere: by another program, a service, or a person.

root/  <id>.mp4  <id>.json      beside a clip, what is known of it: prompt, seed, generator, revision, license
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from storm_hf.annotations.record import Annotation
from storm_hf.errors import DatasetError, MachineError, VideoReadError, is_machine_fault
from storm_hf.thought_video.clip_part import end_of, frame_times
from storm_hf.thought_video.record import Rejected, ThoughtVideo
from storm_hf.thought_video.trim import file_stem


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
