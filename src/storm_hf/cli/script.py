"""A training script as `storm align` starts it: an intended error ends in one sentence.

accelerate launch --module storm_hf.cli.script trainers/align.py --config RECIPE
"""

import runpy
import sys
from pathlib import Path

from storm_hf.cli.errors import ends_in_one_line
from storm_hf.cli.output import silence_imports
from storm_hf.curriculum.launch import exit_code_passed_on


def main() -> None:
    """Run the script that the first argument names, with the other arguments."""
    silence_imports()
    del sys.argv[0]
    script = sys.argv[0]
    with exit_code_passed_on(), ends_in_one_line(f"storm {Path(script).stem}"):
        runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
