"""What `import storm_hf` costs on top of what it needs of transformers, in CPU milliseconds.

    python benchmarks/import_cost.py

Each repetition is a fresh interpreter; the target is 50 ms in the median.
"""

import statistics
import subprocess
import sys

from rich.console import Console


REPETITIONS = 7
SCRIPT = """
import time
from transformers import AutoModel, GenerationMixin, PreTrainedModel
started = time.process_time()
import storm_hf
print((time.process_time() - started) * 1000)
"""


def main() -> None:
    """Repeat, and print minimum, median and maximum."""
    runs = [
        float(subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout)
        for _ in range(REPETITIONS)
    ]
    median = statistics.median(runs)
    Console().print(
        f"import storm_hf: min {min(runs):.0f}, median {median:.0f}, max {max(runs):.0f} ms over transformers"
    )


if __name__ == "__main__":
    main()
