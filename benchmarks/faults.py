"""Let faults of a machine strike commands: fault x command x outcome.

    python benchmarks/faults.py
    python benchmarks/faults.py --only "full disk" --seeds 3

Each row is a process of its own with mounts of its own (Linux, as root or with user namespaces). The command runs to a moment
that the seed draws, the fault strikes, the command ends, the fault is mended, and the same command is given again. A row
holds if nothing that was finished is lost or made twice, nothing half-written lies under a final name, and the same command
ends with what an undisturbed run ends with. Exit code 1 if a row does not hold.
"""

import argparse
import os
import random
import socket
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[1]))  # the tiny models and data are those of the tests

HEAD = ("fault", "command", "event", "ended with", "finished then", "outcome")
_LONGEST = 90  # characters of a cell


def set_environment(root: Path) -> int:
    """Point the libraries to a home and a Hub of their own, before they are imported; return the port of the Hub."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    os.environ |= {
        "HF_HOME": str(root / "hf"),
        "TMPDIR": str(root / "scratch"),
        "HF_ENDPOINT": f"http://127.0.0.1:{port}",
        "HF_TOKEN": "hf_test",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": "1",
        "CI": "1",
    }
    (root / "scratch").mkdir()
    tempfile.tempdir = None  # looked up again
    return port


def main(args: argparse.Namespace) -> int:
    """Print the table."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        port = set_environment(root)
        from tests.faults.table import outcomes, rows

        chosen = [row for row in rows(args.seeds) if args.only in row.title]
        print(f"{len(chosen)} rows\n\n| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}", flush=True)
        counts: Counter[str] = Counter()
        began = time.monotonic()
        for row, outcome in outcomes(chosen, root, port, random.Random(args.seed).getrandbits(32)):
            counts[outcome.verdict] += 1
            print(f"| {' | '.join(cell(text) for text in (*row.cells, *outcome.cells))} |", flush=True)
    print(f"\n{dict(counts)} of {len(chosen)} injected faults, in {time.monotonic() - began:.0f} s")
    return int(set(counts) != {"held"})


def cell(text: str) -> str:
    """Make a text fit a cell of a Markdown table."""
    text = text.replace("|", "/").replace("\n", " ")
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows whose title, such as 'kill: build', holds this")
    parser.add_argument("--seeds", type=int, default=1, help="times that each row is played, at other moments")
    parser.add_argument("--seed", type=int, default=0)
    sys.exit(main(parser.parse_args()))
