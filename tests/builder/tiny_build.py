"""A build small enough for a test: natural-looking clips of two seconds, their own second half as thought videos, a tiny tower."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.video.clips import natural_frames

from storm_hf.builder import ThoughtsRecipe
from storm_hf.video import write_video


FPS, NUM_FRAMES, SIDE = 4, 8, 56


def write_clip(path: Path, seed: int, height: int = SIDE, width: int = SIDE) -> Path:
    """Write two seconds of natural-looking pictures: encoders repeat drawings byte for byte where they do not repeat these."""
    return write_video(path, natural_frames(NUM_FRAMES, height, width, seed), fps=FPS)


def write_annotations(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as a file of annotations in the plain layout."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "annotations.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def question(number: int, video: str) -> dict[str, Any]:
    """A row of annotations, asked after the first second."""
    return {
        "id": f"q{number:02d}",
        "video": video,
        "question": f"What happens next, number {number}?",
        "options": ["left", "right"],
        "answer": "left",
        "time_seconds": 1.0,
        "license": "CC0-1.0",
    }


def clips_and_annotations(folder: Path, count: int, height: int = SIDE, width: int = SIDE) -> Path:
    """Write clips and a question about each."""
    for number in range(count):
        write_clip(folder / f"{number}.mp4", number, height, width)
    return write_annotations(folder, [question(number, f"{number}.mp4") for number in range(count)])


def tiny_recipe(annotations: Path, checkpoint: Path, output: Path, **changes: Any) -> ThoughtsRecipe:
    """A recipe of the kind `future` over a file of annotations."""
    content = {
        "output_dir": str(output),
        "sources": {"train": [{"path": str(annotations)}]},
        "generator": {"future": {"horizon_seconds": 1.0, "fps": 4.0}},
        "encoder": {"model": str(checkpoint)},
        "targets": {"num_latents": 2, "rank": 4},
        "rows_per_shard": 3,
    }
    return ThoughtsRecipe.from_dict({**content, **changes})


def published(folder: Path) -> dict[str, str]:
    """Hash of every file of a data set but the logs and the locks, which no reader sees."""
    files = (path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return {
        name: sha256(path.read_bytes()).hexdigest()
        for name, path in names.items()
        if not name.startswith((".locks/", "work/logs/"))
    }
