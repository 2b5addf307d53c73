"""Pictures and videos of a request: decoded under limits, from nowhere but where the server was told that they may come from."""

import base64
import binascii
import io
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from PIL import Image, UnidentifiedImageError
from transformers import ProcessorMixin

from storm_hf.errors import RequestError
from storm_hf.evaluation.asking import read_clip
from storm_hf.optional import require
from storm_hf.video import VideoClip, VideoLimits, bounded_reading, read_video


_DATA_URI = re.compile(r"data:[\w.+-]*/?[\w.+-]*(?:;[\w=.+-]+)*;base64,", re.ASCII)
_TOO_LARGE = 413


@dataclass(frozen=True, kw_only=True)
class MediaDoor:
    """What a request may bring along, and from where.

    Args:
        max_bytes (`int`, *optional*, defaults to `67108864`):
            Of one file.
        max_video_seconds (`float`, *optional*, defaults to `3600`):
            Length of a video.
        timeout_seconds (`float`, *optional*, defaults to `60`):
            For one file to be fetched, and for one to be decoded.
        limits ([`~storm_hf.video.VideoLimits`], *optional*):
            Pixels of a frame, and bytes of what is decoded.
        folder (`Path`, *optional*):
            Files below it may be named as `file:///...`, relative to it. Without, none may.
        allows_urls (`bool`, *optional*, defaults to `False`):
            Whether the server fetches `https://...` and `http://...`. Whoever may send requests can then make it call any
            address that it reaches.
    """

    max_bytes: int = 64 * 2**20
    max_video_seconds: float = 3600.0
    timeout_seconds: float = 60.0
    limits: VideoLimits = field(default_factory=VideoLimits)
    folder: Path | None = None
    allows_urls: bool = False

    def video(self, url: str, processor: ProcessorMixin) -> VideoClip:
        """Read a video as the model's processor samples it, damaged or not.

        Raises:
            RequestError: If it may not be had, is too large or too long.
            VideoReadError: If there is no picture to be had from it.
        """
        with self._file(url) as path, bounded_reading(self.limits, self.timeout_seconds):
            seconds = read_video(path, num_frames=2, strict=False).duration
            if seconds > self.max_video_seconds:
                raise RequestError(
                    f"Expected a video of at most {self.max_video_seconds:g} seconds but this one has {seconds:.0f}. Send a "
                    "part of it.",
                    status=_TOO_LARGE,
                )
            return read_clip(path, processor)

    def image(self, url: str) -> Image.Image:
        """Read a picture.

        Raises:
            RequestError: If it may not be had, is too large or is no picture.
        """
        with self._file(url) as path:
            try:
                with Image.open(path) as image:
                    if image.width * image.height > self.limits.max_frame_pixels:
                        raise RequestError(
                            f"Expected a picture of at most {self.limits.max_frame_pixels:,} pixels but this one has "
                            f"{image.width * image.height:,}. Send a smaller one.",
                            status=_TOO_LARGE,
                        )
                    return image.convert("RGB")
            except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
                raise RequestError(f"Expected a picture but {_shown(url)} cannot be read as one.") from error

    @contextmanager
    def _file(self, url: str) -> Iterator[Path]:
        """The file of a URL, for as long as the block runs."""
        if urlsplit(url).scheme == "file":
            yield self._local(url)
            return
        content = self._content(url)
        if len(content) > self.max_bytes:
            raise self._too_large()
        with tempfile.TemporaryDirectory(prefix="storm-serve-") as folder:
            path = Path(folder, "media")
            path.write_bytes(content)
            yield path

    def _content(self, url: str) -> bytes:
        if url.startswith("data:"):
            return self._decode(url)
        if urlsplit(url).scheme in ("http", "https"):
            return self._fetch(url)
        raise RequestError(
            f"Expected a `data:...;base64,` URI{' or a file:/// URL' if self.folder else ''} but got {_shown(url)}."
        )

    def _decode(self, url: str) -> bytes:
        if not (head := _DATA_URI.match(url[:200])):
            raise RequestError(f"Expected `data:<type>;base64,<content>` but got {_shown(url)}.")
        if (len(url) - head.end()) * 3 // 4 > self.max_bytes + 2:
            raise self._too_large()
        try:
            return base64.b64decode(url[head.end() :], validate=True)
        except (binascii.Error, ValueError) as error:
            raise RequestError(f"Expected base64 after {head[0]} but it does not decode: {error}.") from error

    def _fetch(self, url: str) -> bytes:
        if not self.allows_urls:
            raise RequestError(
                f"This server fetches nothing, so it does not get {_shown(url)}. Send the file as a `data:...;base64,` URI, or "
                "start the server with --allow-urls."
            )
        httpx, content = require("httpx"), io.BytesIO()
        try:
            with httpx.stream("GET", url, timeout=self.timeout_seconds, follow_redirects=True) as answer:
                answer.raise_for_status()
                for chunk in answer.iter_bytes():
                    content.write(chunk)
                    if content.tell() > self.max_bytes:
                        raise self._too_large()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise RequestError(f"{_shown(url)} could not be fetched: {error}.") from error
        return content.getvalue()

    def _local(self, url: str) -> Path:
        if self.folder is None:
            raise RequestError(
                "This server opens no files of its own. Send the file as a `data:...;base64,` URI, or start the server with "
                "--media-folder."
            )
        root = self.folder.resolve()
        path = (root / unquote(urlsplit(url).path).lstrip("/")).resolve()
        if not path.is_relative_to(root) or not path.is_file():
            raise RequestError(f"There is no file {_shown(url)} in the folder that this server shows.")
        if path.stat().st_size > self.max_bytes:
            raise self._too_large()
        return path

    def _too_large(self) -> RequestError:
        return RequestError(
            f"Expected a file of at most {self.max_bytes:,} bytes but this one is larger. Send a shorter or smaller one.",
            status=_TOO_LARGE,
        )


def _shown(url: str) -> str:
    return url if len(url) <= 80 else f"{url[:60]}..."
