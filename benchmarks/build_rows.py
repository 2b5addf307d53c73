"""Time and memory of reading, planning and looking at a build, for each row; and of finding duplicates.

    python benchmarks/build_rows.py --rows 100000

No clip is read and no model loaded: these are the costs that grow with the number of rows alone.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from storm_hf.builder import ThoughtsBuilder, ThoughtsRecipe
from storm_hf.builder.status import build_status
from storm_hf.thought_video import find_duplicates


def write_rows(folder: Path, rows: int) -> Path:
    """Write annotations of one clip."""
    (folder / "clip.mp4").touch()
    words = {"video": "clip.mp4", "question": "What happens next?", "options": ["left", "right"], "answer": "left"}
    path = folder / "annotations.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            file.write(json.dumps({"id": f"q{number:07d}", "time_seconds": 1.0, **words}) + "\n")
    return path


def recipe_of(annotations: Path, output: Path) -> ThoughtsRecipe:
    """Make a recipe whose model is never loaded."""
    return ThoughtsRecipe.from_dict(
        {
            "output_dir": str(output),
            "sources": {"train": [{"path": str(annotations)}]},
            "generator": {"future": {}},
            "encoder": {"model": "not loaded"},
            "targets": {"num_latents": 2, "rank": 4},
        }
    )


def half_flat_hashes(rows: int) -> dict[str, str]:
    """Hashes of which half the bits are the same in all, such as of clips with a sky."""
    draw = np.random.default_rng(0)
    bits = np.concatenate([draw.random((rows, 128)) < 0.5, np.zeros((rows, 128), dtype=bool)], axis=1)
    return {f"q{number:07d}": np.packbits(row).tobytes().hex() for number, row in enumerate(bits)}


def measure(name: str, rows: int, call: Callable[[], object]) -> None:
    """Run something once and print what it took."""
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    call()
    seconds = time.process_time() - began
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(
        f"{name:32s} {seconds:8.2f} s of CPU  {1e6 * seconds / rows:8.1f} us/row  {more:+8.1f} MiB of peak", flush=True
    )


def main(rows: int) -> None:
    """Measure each part."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        builder = ThoughtsBuilder(recipe_of(write_rows(folder, rows), folder / "data"))
        measure("annotations read and cut", rows, builder.read_annotations)
        measure("the same again", rows, builder.read_annotations)
        measure("prompts", rows, builder.write_prompts)
        measure("status", rows, lambda: build_status(folder / "data"))
        measure("status again", rows, lambda: build_status(folder / "data"))
        hashes = half_flat_hashes(rows)
        measure("duplicates, half of each hash flat", rows, lambda: find_duplicates(hashes))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    main(parser.parse_args().rows)
