"""Clip finder: from the fields of a row to the path of its video."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storm_hf.annotations.layout import PLACEHOLDER, Layout, first_of, look_up, required, text_of
from storm_hf.errors import DatasetError


@dataclass(frozen=True)
class ClipFinder:
    """Finds clips under a root.

    Args:
        layout ([`Layout`]):
            Says how the path of a clip is made of a row.
        root (`Path`):
            The folder that paths are relative to, absolute.
        bounded (`bool`):
            Whether no clip may lie outside of the root, links followed. A foreign row could else name any file of this machine,
            and a data set with the clips in it would publish that. The cache of the Hub, whose snapshots link to the files of
            their own repository, counts as one root.
    """

    layout: Layout
    root: Path
    bounded: bool

    def find(self, row: Mapping[str, Any]) -> Path:
        """The clip of a row, absolute.

        Raises:
            DatasetError: If the row does not name one, or there is no such file.
        """
        stated = self.stated(row)
        path = Path(os.path.normpath(self.root / stated))
        if self.bounded and not path.is_relative_to(self.root):
            raise DatasetError(f"The clip {stated} lies outside of the video root {self.root}.")
        if not os.path.isfile(path):  # unlike `Path.is_file`, False for names that no file can have
            raise DatasetError(f"There is no clip {path}.")
        if self.bounded and not self._is_inside(path):
            raise DatasetError(
                f"The clip {stated} lies outside of the video root {self.root}, since it is a link to "
                f"{os.path.realpath(path)}. Copy it, or name the folder that holds both as video_root."
            )
        return path

    def _is_inside(self, path: Path) -> bool:
        real, root = Path(os.path.realpath(path)), Path(os.path.realpath(self.root))
        return real.is_relative_to(root) or any(real.is_relative_to(blobs) for blobs in _blobs_of(root))

    def stated(self, row: Mapping[str, Any]) -> str:
        """The path of a clip as the row states it, wherever the root is."""
        return PLACEHOLDER.sub(lambda match: self._value(row, match[1]), self.layout.video_path)

    def _value(self, row: Mapping[str, Any], name: str) -> str:
        if name != "video":
            return text_of(required(row, [name], "path of the clip"), name)
        self._check_alone(row)
        value = required(row, self.layout.fields["video"], "clip")
        if isinstance(value, Sequence) and not isinstance(value, str | bytes) and len(value) == 1:
            value = value[0]
        if isinstance(value, Mapping):  # a video column of `datasets`
            if not self._is_on_disk(value):
                raise DatasetError("The clip is embedded in the row. Write it to a file, and name that file.")
            value = value["path"]
        return text_of(value, "path of the clip")

    def _is_on_disk(self, video: Mapping[str, Any]) -> bool:
        """Check that the path of a video names the file with its bytes, if it has any, and no other file of that name."""
        path, held = video.get("path"), video.get("bytes")
        if path is None or held is None:
            return path is not None
        file = Path(os.path.normpath(self.root / path))
        return os.path.isfile(file) and os.path.getsize(file) == len(held) and file.read_bytes() == held

    def _check_alone(self, row: Mapping[str, Any]) -> None:
        """Refuse a row that shows more than one clip: an annotation would ask about the first one alone."""
        for name in self.layout.fields["video"]:
            clips = look_up(row, name.removesuffix(".0"))
            if isinstance(clips, Sequence) and not isinstance(clips, str | bytes) and len(clips) > 1:
                raise DatasetError(f"The row has {len(clips)} clips, and an annotation has one.")
        pictures = first_of(row, ("image", "images")) if self.layout.conversation else None
        if pictures is not None and (isinstance(pictures, str | Mapping) or len(pictures)):
            raise DatasetError("The row has a picture beside its clip, and an annotation has a clip alone.")


def _blobs_of(root: Path) -> list[Path]:
    """Folder of the Hub's cache with the files of the snapshot that a folder lies in: `<repository>/blobs`."""
    return [
        parent.parent / "blobs"
        for parent in root.parents
        if parent.name == "snapshots" and parent.parent.name.startswith(("datasets--", "models--", "spaces--"))
    ]
