"""Images and videos of a request, decoded within size limits and from allowed sources only."""

import base64
import binascii
import io
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from urllib.parse import SplitResult, unquote, urlsplit

import av
from PIL import Image, UnidentifiedImageError
from transformers import ProcessorMixin
from transformers.image_utils import load_image

from storm_hf.errors import MachineError, RequestError, VideoReadError, first_line, is_machine_fault
from storm_hf.evaluation.single import read_clip
from storm_hf.inputs.media import DAMAGED_PICTURE
from storm_hf.optional import require
from storm_hf.video import VideoClip, VideoLimits, bounded_reading, read_video


# The type may have parameters, some of them quoted, some with a comma: `video/webm;codecs=vp8,opus`.
_DATA_URI = re.compile(r'data:(?:"[^"]*"|[^"])*?;base64,', re.IGNORECASE)
_MAX_DATA_TYPE = 512
_IMAGE_FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")
# Errors of a decoder that reads untrusted bytes.
_DAMAGED = (*DAMAGED_PICTURE, NotImplementedError, RuntimeError, av.error.FFmpegError)
_TOO_LARGE = 413


@dataclass(frozen=True, kw_only=True)
class MediaPolicy:
    """Allowed sources and sizes of the images and videos of a request.

    Args:
        max_bytes (`int`, *optional*, defaults to `67108864`):
            Of one file.
        max_video_seconds (`float`, *optional*, defaults to `3600`):
            Length of a video.
        timeout_seconds (`float`, *optional*, defaults to `60`):
            Time for one file to be fetched, and for one to be decoded.
        limits ([`~storm_hf.video.VideoLimits`], *optional*):
            Pixels of a frame, and bytes of what is decoded.
        folder (`Path`, *optional*):
            Files below it may be named as `file:///...`, relative to it. By default no file may.
        allows_urls (`bool`, *optional*, defaults to `False`):
            Whether the server fetches `https://...` and `http://...`. Every client can then make it call any address that it
            reaches.
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
            RequestError: If its source is not allowed, if it is too large or too long, or if no frame can be decoded.
        """
        with (
            self._file(url) as path,
            _named_without_path(path, "The video"),
            bounded_reading(self.limits, self.timeout_seconds),
        ):
            seconds = read_video(path, num_frames=2, strict=False).duration
            if seconds > self.max_video_seconds:
                raise RequestError(
                    f"Expected a video of at most {self.max_video_seconds:g} seconds but this one has {seconds:.0f}. Send a "
                    "part of it.",
                    _TOO_LARGE,
                )
            return read_clip(path, processor)

    def image(self, url: str) -> Image.Image:
        """Read an image in RGB, turned as a viewer shows it.

        Raises:
            RequestError: If its source is not allowed, if it is too large or if it cannot be decoded.
        """
        with (
            self._file(url) as path,
            _named_without_path(path, "The picture"),
            Image.open(path, formats=_IMAGE_FORMATS) as image,
        ):
            if image.width * image.height > self.limits.max_frame_pixels:
                raise RequestError(
                    f"Expected a picture of at most {self.limits.max_frame_pixels:,} pixels but this one has "
                    f"{image.width * image.height:,}. Send a smaller one.",
                    _TOO_LARGE,
                )
            return load_image(image)

    @contextmanager
    def _file(self, url: str) -> Iterator[Path]:
        """Provide the file of a URL for as long as the block runs."""
        parts = _split(url)
        if parts.scheme == "file":
            yield self._local(url, parts)
            return
        content = self._content(url, parts.scheme)
        if len(content) > self.max_bytes:
            raise self._too_large()
        with tempfile.TemporaryDirectory(prefix="storm-serve-") as folder:
            path = Path(folder, "media")
            path.write_bytes(content)
            yield path

    def _content(self, url: str, scheme: str) -> bytes:
        if scheme == "data":
            return self._decode(url)
        if scheme in ("http", "https"):
            return self._fetch(url)
        raise RequestError(
            f"Expected a `data:...;base64,` URI{' or a file:/// URL' if self.folder else ''} but got {_shown(url)}."
        )

    def _decode(self, url: str) -> bytes:
        if not (head := _DATA_URI.match(url[:_MAX_DATA_TYPE])):
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
        httpx, content, end = require("httpx"), io.BytesIO(), monotonic() + self.timeout_seconds
        try:
            with httpx.stream("GET", url, timeout=self.timeout_seconds, follow_redirects=True) as answer:
                answer.raise_for_status()
                for chunk in answer.iter_bytes():
                    content.write(chunk)
                    if content.tell() > self.max_bytes:
                        raise self._too_large()
                    if monotonic() > end:
                        raise RequestError(f"{_shown(url)} was not fetched within {self.timeout_seconds:g} seconds.")
        except RequestError:
            raise
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:  # ValueError of a host that no name can be
            raise RequestError(f"{_shown(url)} could not be fetched: {error}.") from error
        return content.getvalue()

    def _local(self, url: str, parts: SplitResult) -> Path:
        if self.folder is None:
            raise RequestError(
                "This server opens no files of its own. Send the file as a `data:...;base64,` URI, or start the server with "
                "--media-folder."
            )
        root = self.folder.resolve()
        try:
            path = (root / unquote(parts.path).lstrip("/")).resolve()
            is_shown = path.is_relative_to(root) and path.is_file()
        except (OSError, ValueError):  # a name that is too long, or holds a zero
            is_shown = False
        if not is_shown:
            raise RequestError(f"There is no file {_shown(url)} in the folder that this server shows.")
        if path.stat().st_size > self.max_bytes:
            raise self._too_large()
        return path

    def _too_large(self) -> RequestError:
        return RequestError(
            f"Expected a file of at most {self.max_bytes:,} bytes but this one is larger. Send a shorter or smaller one.",
            _TOO_LARGE,
        )


@contextmanager
def _named_without_path(path: Path, name: str) -> Iterator[None]:
    """Raise errors of a decoder as errors of the request, which name no path of the server.

    Raises:
        RequestError: If the file cannot be decoded.
    """
    try:
        yield
    except RequestError:
        raise
    except UnidentifiedImageError as error:
        raise RequestError(f"{name} cannot be read as one of the kinds {', '.join(_IMAGE_FORMATS)}.") from error
    except _DAMAGED as error:
        if isinstance(error, MachineError) or is_machine_fault(error):
            raise
        reason = str(error) if isinstance(error, VideoReadError) else f"{name} cannot be decoded: {first_line(error)}."
        raise RequestError(reason.replace(str(path), name)) from error


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url if url[:5].lower() != "data:" else "data:")  # which may be long
    except ValueError as error:
        raise RequestError(f"Expected a URL but {_shown(url)} is none: {error}.") from error


def _shown(url: str) -> str:
    return url if len(url) <= 80 else f"{url[:60]}..."
