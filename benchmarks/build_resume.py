"""Kill a build at random moments, again and again, and compare what it ends with to one that was not killed.

    python benchmarks/build_resume.py --kills 20
    python benchmarks/build_resume.py --kills 20 --tasks 3

Each attempt is a process group of its own, killed with SIGKILL at a moment drawn over the length of a whole build, and then
begun again and left to its end. One that ends before its moment is not counted. Exit code 1 if a byte differs.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path

import yaml
from datasets import load_dataset

from storm_hf.demo.backbone import tiny_config, tiny_processor
from storm_hf.model import StormForConditionalGeneration
from storm_hf.worlds import make_world


SCRIPT = Path(__file__).parents[1] / "datasets_builders" / "storm_thoughts.py"
NUM_STEPS = 6


def save_base(folder: Path) -> Path:
    """Save the untrained backbone of `storm demo`."""
    processor = tiny_processor(make_world("shuffle").vocabulary, NUM_STEPS, frame_pixels=16 * 64)
    StormForConditionalGeneration(tiny_config(processor, NUM_STEPS)).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def write_recipe(path: Path, base: Path, rows: int) -> Path:
    """Write a recipe of many small shards."""
    content = {
        "output_dir": "unused",
        "world": {"world": "shuffle", "splits": {"train": {"count": rows}, "test": {"count": rows // 8}}},
        "generator": {"simulator": {}},
        "gates": {"duplicate": {}},
        "encoder": {"model": str(base)},
        "targets": {"num_latents": NUM_STEPS, "rank": 8},
        "rows_per_shard": 16,
    }
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def command(recipe: Path, output: Path, args: argparse.Namespace) -> list[str]:
    """The command of a user."""
    how = ["--tasks", str(args.tasks)] if args.tasks else ["--workers", str(args.workers)]
    return [sys.executable, str(SCRIPT), "--config", str(recipe), "--output_dir", str(output), *how]


def run(words: list[str], seconds: float | None = None) -> float | None:
    """Run to the end, or kill the whole process group after some seconds; return how long it took, None if killed."""
    began = time.monotonic()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None
    if process.returncode:
        raise SystemExit(errors.decode()[-3000:])
    return time.monotonic() - began


def hashes(folder: Path) -> dict[str, str]:
    """Hash of every file but locks and logs."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {
        name: sha256(path.read_bytes()).hexdigest()
        for name, path in sorted(files.items())
        if not name.startswith((".locks/", "work/logs/"))
    }


def main(args: argparse.Namespace) -> None:
    """Build once in peace, then under fire, and compare."""
    draw = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as place:
        base = save_base(Path(place, "base"))
        recipe = write_recipe(Path(place, "recipe.yaml"), base, args.rows)
        whole = run(command(recipe, Path(place, "peace"), args))
        assert whole is not None  # nobody kills it
        expected = hashes(Path(place, "peace"))
        print(f"uninterrupted: {whole:.1f} s, {len(expected)} files")
        killed = attempts = 0
        while killed < args.kills:
            output = Path(place, f"attempt-{attempts}")
            attempts += 1
            moment = draw.uniform(0, whole)
            if (ended := run(command(recipe, output, args), moment)) is not None:
                whole = min(whole, ended)  # it came to its end before: the machine is less busy now
                continue
            killed += 1
            steps = {path.name: len(list(path.iterdir())) for path in sorted(output.glob("work/*")) if path.is_dir()}
            run(command(recipe, output, args))
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
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--tasks", type=int, help="of datatrove")
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args())
