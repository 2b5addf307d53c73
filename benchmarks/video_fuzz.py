"""Read videos with changed headers, in processes that may die: no crash, no hang, no error but a sentence, no growing memory.

    python benchmarks/video_fuzz.py --inputs 20000

What is changed, and what counts as a problem, stands in tests/video/fuzz.py. Each process reads a thousand files, so that one
that dies says so and costs the others nothing. Exit code 1 if there was a problem.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path


ROOT = Path(__file__).parents[1]
INPUTS_OF_A_PROCESS = 1000
SECONDS_OF_AN_INPUT = 5  # far more than the mean: a process that takes longer hangs


def read_inputs(first: int, count: int) -> tuple[Counter[str], list[str], int]:
    """Run one process; return how its inputs went, the problems, and the peak of its memory in MiB."""
    outcomes, problems, peak = Counter[str](), [], 0
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.video.fuzz", folder, str(first), str(count)]
        places = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
        try:
            seconds = count * SECONDS_OF_AN_INPUT
            ended = subprocess.run(command, capture_output=True, text=True, env=places, cwd=ROOT, timeout=seconds)
            lines, code = ended.stdout.splitlines(), ended.returncode
        except subprocess.TimeoutExpired as hung:
            lines, code = (hung.stdout or b"").decode().splitlines(), "none: it hangs"
        for line in map(json.loads, lines):
            if "problem" in line:
                problems.append(f"input {line['input']}: {line['problem']}")
            else:
                outcomes, peak = Counter(line["outcomes"]), line["peak_mib"]
                problems += [f"{line['descriptors']} descriptors left open"] if line["descriptors"] > 0 else []
        if code:
            current = json.loads(Path(folder, "current.json").read_text(encoding="utf-8"))
            problems.append(f"input {current['input']}: exit code {code}")
    return outcomes, problems, peak


def main(args: argparse.Namespace) -> None:
    """Read all inputs and print what came of them."""
    outcomes, problems, peaks = Counter[str](), [], []
    for first in range(args.seed, args.seed + args.inputs, INPUTS_OF_A_PROCESS):
        count = min(INPUTS_OF_A_PROCESS, args.seed + args.inputs - first)
        of_process, found, peak = read_inputs(first, count)
        outcomes += of_process
        problems += found
        peaks.append(peak)
        print(
            f"{first + count - args.seed} inputs: {dict(outcomes)}, peak {peak} MiB, {len(problems)} problems",
            flush=True,
        )
        for problem in found:
            print(f"  {problem}", flush=True)
    print(
        f"{sum(outcomes.values())} inputs: {dict(outcomes)}; memory at most {max(peaks)} MiB; {len(problems)} problems"
    )
    raise SystemExit(bool(problems))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args())
