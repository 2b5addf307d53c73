"""Clips per second of a build against the bare encoder loop, one worker against two, and memory over ten times the rows.

    python benchmarks/build_throughput.py --rows 256

The encoder has the width of a small real tower, so that encoding, and not the start of Python, is what is measured. Times
are of the phases without the loading of models; of workers, from the first file they write to the last one. One and two workers
are measured in turn, since other programs of the machine take from both.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from storm_hf.builder import ThoughtsBuilder, ThoughtsRecipe
from storm_hf.builder.engines import build_with_workers
from storm_hf.demo.backbone import tiny_config, tiny_processor
from storm_hf.model import StormForConditionalGeneration
from storm_hf.optional import require
from storm_hf.target_trajectory import encode_frames
from storm_hf.video import read_video
from storm_hf.worlds import make_world


NUM_STEPS = 6


def save_base(folder: Path, depth: int, width: int) -> Path:
    """Save a random backbone whose vision tower is `depth` layers of `width`."""
    processor = tiny_processor(make_world("shuffle").vocabulary, NUM_STEPS, frame_pixels=64 * 64)
    config = tiny_config(processor, NUM_STEPS)
    vision = config.vlm_config.vision_config
    vision.depth, vision.hidden_size, vision.intermediate_size, vision.num_heads = depth, width, 4 * width, width // 64
    StormForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def recipe_of(base: Path, output: Path, rows: int, rows_per_shard: int = 32) -> ThoughtsRecipe:
    """A world, whose clips cost next to nothing to draw."""
    return ThoughtsRecipe.from_dict(
        {
            "output_dir": str(output),
            "world": {"world": "shuffle", "splits": {"train": {"count": rows}}},
            "generator": {"simulator": {}},
            "encoder": {"model": str(base), "batch_size": 16},
            "targets": {"num_latents": NUM_STEPS, "rank": 8},
            "rows_per_shard": rows_per_shard,
        }
    )


@dataclass(frozen=True)
class Seconds:
    """Time of something: on the wall, and of one processor core, which other programs on the machine do not change."""

    wall: float
    core: float


@contextmanager
def stopwatch() -> Iterator[Callable[[], Seconds]]:
    """Yield what says how long it has been."""
    wall, core = time.perf_counter(), time.process_time()
    yield lambda: Seconds(time.perf_counter() - wall, time.process_time() - core)


def build_seconds(recipe: ThoughtsRecipe) -> Seconds:
    """Build in this process, the model loaded before the clock starts."""
    builder = ThoughtsBuilder(recipe)
    builder.encoder.revision  # noqa: B018  # loads and hashes the weights
    require("datasets")  # takes two seconds to import
    with stopwatch() as taken:
        builder.build()
        return taken()


def bare_seconds(recipe: ThoughtsRecipe) -> Seconds:
    """Read and encode the same thought videos in the loop that one would write by hand."""
    encoder = ThoughtsBuilder(recipe).encoder
    clips = sorted(Path(recipe.output_dir, "videos", "thoughts").rglob("*.mp4"))
    with stopwatch() as taken:
        for start in range(0, len(clips), recipe.encoder.batch_size):
            batch = [read_video(path).frames for path in clips[start : start + recipe.encoder.batch_size]]
            encode_frames(encoder.model, encoder.processor, batch, fps=2.0, batch_size=recipe.encoder.batch_size)
        return taken()


def peak_megabytes(base: str, output: str, rows: str) -> None:
    """Build in this process and print its largest memory."""
    ThoughtsBuilder(recipe_of(Path(base), Path(output), int(rows))).build()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def measured_peak(base: Path, output: Path, rows: int) -> float:
    """Peak memory of a build in a fresh process."""
    words = [sys.executable, __file__, "--peak", str(base), str(output), str(rows)]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()[-1])


def compare_workers(base: Path, place: Path, args: argparse.Namespace, repetition: int) -> float:
    """Measure the speed-up of two workers over one, one measured right after the other; the first one takes turns."""
    seconds = {}
    for workers in (1, 2) if repetition % 2 == 0 else (2, 1):
        folder, load = place / f"workers-{workers}-{repetition}", os.getloadavg()[0]
        build_with_workers(recipe_of(base, folder, args.rows, max(1, args.rows // 16)), workers)  # they end together
        begin, end = (folder / name for name in ("work/10_annotations/index.json", "manifest.json"))
        seconds[workers] = end.stat().st_mtime - begin.stat().st_mtime
        print(f"workers: {workers}, {seconds[workers]:.1f} s, load average {load:.1f} before", flush=True)
    return seconds[1] / seconds[2]


def main(args: argparse.Namespace) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        base = save_base(place / "base", args.depth, args.width)
        recipe = recipe_of(base, place / "one", args.rows)
        if args.bare:
            build, bare = build_seconds(recipe), bare_seconds(recipe)
            print(f"build {args.rows / build.wall:.1f} clips/s, bare encoder loop {args.rows / bare.wall:.1f} clips/s")
            by_clock, by_core = bare.wall / build.wall, bare.core / build.core
            print(f"of the bare loop's rate: {by_clock:.2f} by the clock, {by_core:.2f} by core time", flush=True)
        if args.workers:
            ratios = [compare_workers(base, place, args, repetition) for repetition in range(args.repetitions)]
            print(f"2 workers are {median(ratios):.2f} times as fast as 1, median of {len(ratios)}")
        if args.memory:
            small = save_base(place / "small", 1, 64)
            peaks = [measured_peak(small, place / f"peak-{rows}", rows) for rows in (args.rows, 10 * args.rows)]
            print(f"peak memory {peaks[0]:.0f} MiB for {args.rows} rows, {peaks[1]:.0f} MiB for {10 * args.rows}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        peak_megabytes(*sys.argv[2:])
    else:
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--rows", type=int, default=256)
        parser.add_argument("--depth", type=int, default=12)
        parser.add_argument("--width", type=int, default=512)
        parser.add_argument("--repetitions", type=int, default=3, help="of 1 worker against 2, interleaved")
        parser.add_argument("--bare", action=argparse.BooleanOptionalAction, default=True)
        parser.add_argument("--workers", action=argparse.BooleanOptionalAction, default=True)
        parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True)
        main(parser.parse_args())
