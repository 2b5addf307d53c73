"""Videos and pictures of a row, in every form that data sets have them, as frames."""

import io
import re
import struct
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
from huggingface_hub.utils import httpx
from PIL import Image
from transformers import ProcessorMixin
from transformers.image_utils import load_image
from transformers.video_utils import VideoMetadata

from storm_hf.errors import DatasetError, VideoReadError, first_line
from storm_hf.model.processing_storm import MAX_FRAMES, frame_sampling
from storm_hf.pipeline.paths import is_url
from storm_hf.video import VideoClip, read_video
from storm_hf.video.source import open_video


_UNTIMED_FPS = 1.0  # of frames that come without times
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")
# Errors of Pillow about files that are no pictures, or damaged. Its plugins raise most of them.
DAMAGED_PICTURE = (
    *(ArithmeticError, EOFError, LookupError, OSError, SyntaxError, TypeError, ValueError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)
_UNREADABLE_PICTURE = (*DAMAGED_PICTURE, httpx.HTTPError, httpx.InvalidURL)


def load_clip(
    video: object,
    processor: ProcessorMixin,
    *,
    max_frames: int | None = None,
    strict: bool = True,
    sampling: Mapping[str, Any] | None = None,
) -> VideoClip:
    """Read a video as the saved video processor samples it, the same for training and for every question.

    With `do_sample_frames` the processor's `num_frames` applies, or its `fps` between `min_frames` and `max_frames`. Where it
    names no most, or samples nothing, `MAX_FRAMES` frames are read at most, evenly in time.

    Args:
        video (`str`, `Path`, `bytes`, `dict`, `list`, `np.ndarray` or [`VideoClip`]):
            A path or `file://` URL; the bytes of a file, or `{"bytes", "path"}` as Parquet embeds it, where bytes win; frames,
            as a list of pictures or paths of pictures or as an array `(num_frames, height, width, 3)`; or a clip. Frames are taken as
            they are.
        processor ([`~transformers.ProcessorMixin`]):
            Holds the video processor.
        max_frames (`int`, *optional*):
            Most frames of a video whose number is not set, in the place of the processor's.
        strict (`bool`, *optional*, defaults to `True`):
            Whether damage is an error; see `read_video`.
        sampling (`Mapping`, *optional*):
            A row's own `num_frames`, `fps`, `min_frames` or `max_frames`.

    Raises:
        DatasetError: If the row holds something else.
        VideoReadError: If the video cannot be read.
    """
    if isinstance(video, VideoClip):
        return video
    wanted = wanted_sampling(processor, sampling)
    if max_frames is not None:
        wanted["max_frames"] = max_frames
    if is_frames(video):
        return _clip_of_frames(video, (sampling or {}).get("fps") or _UNTIMED_FPS)
    with video_file(video) as path:
        return _read_sampled(path, wanted, strict)


def is_frames(video: object) -> bool:
    """Check that a video is given as its frames."""
    return not isinstance(video, str | bytes | bytearray | memoryview | Path | Mapping) and (
        hasattr(video, "shape") or isinstance(video, Sequence)
    )


@contextmanager
def video_file(video: object) -> Iterator[Path]:
    """The file of a video, for as long as the block runs: its own, or one with the bytes that the row holds.

    Raises:
        DatasetError: If the row names no file and holds no bytes.
    """
    if isinstance(video, bytes | bytearray | memoryview):
        video = {"bytes": video}
    if isinstance(video, Mapping) and video.get("bytes") is not None:
        with tempfile.TemporaryDirectory(prefix="storm-video-") as folder:
            path = Path(folder, _embedded_name(video.get("path")))
            path.write_bytes(_checked_bytes(video["bytes"]))
            with _embedded_video_named(path):
                yield path
        return
    place = video.get("path") or video.get("url") if isinstance(video, Mapping) else video
    if not isinstance(place, str | Path) or not str(place):
        raise DatasetError(
            f"Expected the path of a video file, its bytes or its frames, got {type(video).__name__} without one. Write the "
            "clip to a file, or load the data set with `Video(decode=False)`."
        )
    if is_url(str(place)) and not _is_file_url(place):
        raise DatasetError(f"Expected a video on this machine, got {str(place)[:60]}. Download it first.")
    yield _local(place)


def _embedded_name(path: object) -> str:
    """Name the file for the bytes of a row; of their own path, which may be a whole URL, it has only the suffix."""
    suffix = Path(str(path)).suffix
    return f"embedded{suffix}" if _SUFFIX.fullmatch(suffix) else "embedded"


def _checked_bytes(content: Any) -> bytes:
    try:
        return bytes(memoryview(content))
    except TypeError as error:
        raise DatasetError(
            f"Expected `bytes` of a video to be bytes, got {type(content).__name__}. Decode them, or give a path."
        ) from error


@contextmanager
def _embedded_video_named(path: Path) -> Iterator[None]:
    """Leave the file that was written for the bytes of a row out of what its reading raises."""
    try:
        yield
    except VideoReadError as error:
        raise VideoReadError(str(error).replace(str(path), "the embedded video"), error.timeout_seconds) from error


def _local(place: str | Path) -> Path:
    """The path that a `file://` URL means, or the path itself."""
    return Path(unquote(urlsplit(str(place)).path)) if _is_file_url(place) else Path(place)


def _is_file_url(place: str | Path) -> bool:
    return isinstance(place, str) and place[:7].lower() == "file://"


def wanted_sampling(processor: ProcessorMixin, own: Mapping[str, Any] | None) -> dict[str, Any]:
    """A processor's sampling of frames with what a row sets itself; a row's rate takes the place of a number."""
    own = own or {}
    replaced = {"num_frames": None} if "fps" in own else {}
    return {"max_frames": MAX_FRAMES, **frame_sampling(processor.video_processor), **replaced, **own}


def num_sampled(num_frames: int, seconds: float, sampling: Mapping[str, Any]) -> int:
    """Number of frames that are read of a video.

    Args:
        num_frames (`int`):
            Frames of the file.
        seconds (`float`):
            Its length.
        sampling (`Mapping`):
            As [`~storm_hf.model.processing_storm.frame_sampling`] says it.
    """
    if sampling.get("num_frames"):
        return int(sampling["num_frames"])
    if sampling.get("fps"):
        num_frames = max(round(seconds * sampling["fps"]), min(sampling.get("min_frames") or 1, num_frames))
    return max(min(num_frames, sampling["max_frames"]), 1)


def _read_sampled(path: Path, sampling: Mapping[str, Any], strict: bool) -> VideoClip:
    if sampling.get("num_frames"):
        return read_video(path, num_frames=sampling["num_frames"], strict=strict)
    most, fps = sampling["max_frames"], sampling.get("fps")
    if fps is None:
        return _read_whole(path, most, strict) or _spread(path, most, strict)
    fewest = min(sampling.get("min_frames") or 1, most)
    if read_video(path, num_frames=2, strict=strict).duration * fps >= most - 1:  # never hold more than `most`
        return _spread(path, most, strict)
    clip = read_video(path, fps=fps, strict=strict)
    if fewest <= clip.num_asked <= most:
        return clip
    return _spread(path, fewest if clip.num_asked < fewest else most, strict)


def _read_whole(path: Path, most: int, strict: bool) -> VideoClip | None:
    """Every frame of a file whose header gives at most so many; None where it does not."""
    with open_video(path) as (_, stream):
        is_short = 0 < stream.frames <= most
    clip = read_video(path, strict=strict) if is_short else None
    return clip if clip is not None and clip.num_asked <= most else None


def _spread(path: Path, num_frames: int, strict: bool) -> VideoClip:
    """So many frames evenly in time, or as many as there are, without repetitions."""
    clip = read_video(path, num_frames=num_frames, strict=strict)
    num_different = len(set(clip.timestamps))
    return clip if num_different == num_frames else read_video(path, num_frames=num_different, strict=strict)


def _clip_of_frames(video: object, fps: float) -> VideoClip:
    frames = _stack(video) if isinstance(video, Sequence) else _rgb_frames(_as_array(video))
    num_frames = len(frames)
    return VideoClip(frames, np.arange(num_frames) / fps, num_frames, num_frames, 0, 0, "frames")


def _stack(video: Sequence[Any]) -> np.ndarray:
    pictures = [np.asarray(load_picture(frame)) for frame in video]
    if len({picture.shape for picture in pictures}) != 1:
        sizes = sorted({f"{picture.shape[1]} x {picture.shape[0]}" for picture in pictures})
        raise DatasetError(f"Expected frames of one size, got {', '.join(sizes) or 'none'}. Resize them to one.")
    return np.stack(pictures)


def _as_array(frames: object) -> np.ndarray:
    """The array of frames of any library; tensors on a GPU, of a type that numpy lacks, or with a gradient are none."""
    try:
        return np.asarray(frames)
    except (RuntimeError, TypeError, ValueError) as error:
        raise DatasetError(
            f"Expected frames as an array, or as a tensor on the CPU, got what numpy does not take: {first_line(error)}."
        ) from error


def _rgb_frames(frames: np.ndarray) -> np.ndarray:
    """Frames (T, H, W, 3) of an array that may have its channels before height and width."""
    if frames.ndim == 4 and frames.shape[1] == 3 and frames.shape[3] != 3:
        frames = frames.transpose(0, 2, 3, 1)
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise DatasetError(
            "Expected frames of shape (num_frames, height, width, 3) and type uint8, got "
            f"{frames.shape} of {frames.dtype}. Convert them."
        )
    return frames


def load_picture(picture: object) -> Image.Image:
    """Read a picture in RGB, turned as a viewer shows it.

    Args:
        picture (`str`, `Path`, `dict`, `np.ndarray` or [`~PIL.Image.Image`]):
            A path, `file://`, `http://` or `data:` URL; `{"bytes", "path"}` as Parquet embeds a picture; an array; or a
            picture.

    Raises:
        DatasetError: If it cannot be read.
    """
    if isinstance(picture, Mapping):
        held = picture.get("bytes")
        picture = held if held is not None else picture.get("path") or picture.get("url")
    try:
        found = _opened_picture(picture)
    except _UNREADABLE_PICTURE as error:
        raise DatasetError(f"The picture {str(picture)[:80]!r} cannot be read: {first_line(error)}.") from error
    if found is None:
        raise DatasetError(f"Expected a picture or the path of one, got {type(picture).__name__}.")
    if 0 in found.size:
        raise DatasetError(f"Expected a picture, got one of {found.width} x {found.height} pixels. Leave the row out.")
    return found


def _opened_picture(picture: object) -> Image.Image | None:
    """The picture in RGB; None where a row holds something else."""
    if isinstance(picture, bytes):
        return load_image(Image.open(io.BytesIO(picture)))
    if isinstance(picture, str | Path):
        is_remote = str(picture).startswith(("http://", "https://", "data:"))
        return load_image(str(picture) if is_remote else str(_local(picture)))
    if hasattr(picture, "shape"):
        return Image.fromarray(np.asarray(picture)).convert("RGB")
    return load_image(picture) if isinstance(picture, Image.Image) else None


def video_metadata(clip: VideoClip) -> VideoMetadata:
    """Tell a processor when the frames of a clip are shown, since backbones print or embed timestamps."""
    num_frames, height, width, _ = clip.frames.shape
    return VideoMetadata(
        total_num_frames=num_frames,
        fps=clip.fps or 1.0,
        frames_indices=list(range(num_frames)),
        height=height,
        width=width,
        duration=num_frames / (clip.fps or 1.0),
    )
