"""Clips that are prepared once, however many questions are asked about them."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import BatchFeature, ProcessorMixin


@dataclass(frozen=True, eq=False)
class _SeenClips:
    """A copy of the last input of a video processor, and its output."""

    frames: list[list[np.ndarray]]
    settings: Mapping[str, Any]
    prepared: Mapping[str, Any]

    def are(self, frames: Sequence[Sequence[np.ndarray]], settings: Mapping[str, Any]) -> bool:
        return (
            settings == self.settings
            and [len(clip) for clip in frames] == [len(clip) for clip in self.frames]
            and all(map(_are_equal, frames, self.frames))
        )


def _are_equal(frames: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> bool:
    return all(np.array_equal(frame, other) for frame, other in zip(frames, others, strict=True))


class _RememberingVideoProcessor:
    """Stands for a video processor, and does not resize and cut into patches again what it did last."""

    def __init__(self, video_processor: Any) -> None:
        self._processor = video_processor
        self._seen: _SeenClips | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_processor":  # of a copy that is being made
            raise AttributeError(name)
        return getattr(self._processor, name)

    def __call__(self, videos: Any, **settings: object) -> BatchFeature:
        if not _is_list_of_clips(videos):
            return self._processor(videos, **settings)
        seen = self._seen  # read once: another thread may bring other clips
        if seen is None or not seen.are(videos, settings):
            prepared = dict(self._processor(videos, **settings))
            seen = self._seen = _SeenClips([[frame.copy() for frame in clip] for clip in videos], settings, prepared)
        return BatchFeature(dict(seen.prepared))


def _is_list_of_clips(videos: object) -> bool:
    """Check for frames of clips in memory, as `PromptEncoder` hands them on."""
    return isinstance(videos, list) and all(
        isinstance(clip, list) and all(isinstance(frame, np.ndarray) for frame in clip) for clip in videos
    )


def prepared_once(processor: ProcessorMixin) -> ProcessorMixin:
    """Make a copy of a processor that prepares the same clips once as long as no others come between.

    Frames are compared by what they show, so that a clip which was read again counts as the same one. The copy holds the last clips
    and their pixels, and shares all else with the processor.

    Args:
        processor ([`~transformers.ProcessorMixin`]):
            The processor.
    """
    remembering = copy.copy(processor)
    remembering.video_processor = _RememberingVideoProcessor(processor.video_processor)
    return remembering
