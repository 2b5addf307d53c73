"""Annotations about small clips whose frames say their own number."""

from pathlib import Path

from tests.video.clips import encode, numbered_frames

from storm_hf.annotations.record import Annotation


FPS = 10


def numbered_clip(folder: Path, count: int = 40, **options) -> Path:
    """Write a clip of numbered frames, ten per second."""
    return encode(folder / "clip.mp4", numbered_frames(count), fps=FPS, **options)


def question(video: Path, **fields) -> Annotation:
    """Ask something about a clip."""
    words = {
        "id": "q1",
        "question": "What next?",
        "options": ("left", "right"),
        "answer": "left",
        "license": "CC0-1.0",
    }
    return Annotation(video=Path(video), **{**words, **fields})
