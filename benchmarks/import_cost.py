"""Cost of `import storm_hf`, and of the commands that need no model, in CPU time.

    python benchmarks/import_cost.py

The import is measured on top of the modules of transformers that it needs; its target is 50 ms in the median, that of a command
500 ms. Each repetition is a new interpreter.
"""

import argparse
import os
import statistics
import subprocess
import sys

from rich.console import Console


REPETITIONS = 7
IMPORT = """
import time
from transformers import AutoModel, GenerationMixin, PreTrainedModel
started = time.process_time()
import storm_hf
print(time.process_time() - started)
"""
COMMAND = "import sys; sys.argv = ['storm', {words}]; from storm_command import main; main()"
COMMANDS = {
    "storm --help": COMMAND.format(words="'--help'"),
    "storm --version": COMMAND.format(words="'--version'"),
    "storm env": COMMAND.format(words="'env'"),
    "storm build status": COMMAND.format(words="'build', 'status', 'no-such-folder'"),
}


def main() -> None:
    """Repeat, and print minimum, median and maximum."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    show("import storm_hf, over transformers", [float(run(IMPORT)) for _ in range(REPETITIONS)])
    for title, code in COMMANDS.items():
        show(title, [cpu_seconds(code) for _ in range(REPETITIONS)])


def run(code: str) -> str:
    """Run a program in a new interpreter and return its output."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stdout


def cpu_seconds(code: str) -> float:
    """CPU time of a program, its interpreter included."""
    before = os.times()
    run(code)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def show(title: str, seconds: list[float]) -> None:
    """Print one line of milliseconds."""
    low, median, high = (1000 * function(seconds) for function in (min, statistics.median, max))
    Console().print(f"{title}: min {low:.0f}, median {median:.0f}, max {high:.0f} ms")


if __name__ == "__main__":
    main()
