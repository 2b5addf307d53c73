"""The table of backbones: every model type of the installed transformers that reads videos, tiny and random, along every way.

    python benchmarks/backbones.py
    python benchmarks/backbones.py --only qwen3_vl gemma4 --output backbones.md

A cell is `yes` where the check holds, `refused` where our own error says that it cannot be, and `no` where it fails; the reasons stand
below the table. The checks are those of `tests/backbone_checks.py`, and `tests/model/test_backbones.py` runs them too.
"""

import argparse
import contextlib
import io
import logging
import sys
import tempfile
import warnings
from pathlib import Path

import torch
import transformers


sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.backbone_checks import COLUMNS, Candidate, RefusedError, make_candidate
from tests.backbones import VIDEO_BACKBONES

from storm_hf.errors import BackboneError


Cells = dict[str, str]


def check_backbone(kind: str) -> tuple[Cells, list[str]]:
    """Run all checks on one backbone; returns its cells, and a reason for each that is not `yes`."""
    cells, reasons = dict.fromkeys(["from_backbone", *COLUMNS], ""), []
    with tempfile.TemporaryDirectory() as folder:
        try:
            candidate = make_candidate(kind, Path(folder))
        except (BackboneError, ImportError) as error:
            cells["from_backbone"] = "refused" if isinstance(error, BackboneError) else "not installed"
            return cells, [f"`{kind}`: {_first_sentence(error)}"]
        cells["from_backbone"] = "yes"
        for name, check in COLUMNS.items():
            cells[name], reason = _run(check, candidate)
            if reason:
                reasons.append(f"`{kind}`, {name}: {reason}")
    return cells, reasons


def _run(check, candidate: Candidate) -> tuple[str, str]:
    try:
        check(candidate)
    except RefusedError as error:
        return "refused", _first_sentence(error)
    except Exception as error:  # whatever fails is a cell of the table
        return "no", f"{type(error).__name__}: {_first_sentence(error)}"
    return "yes", ""


def _first_sentence(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "").split(". ")[0]


def write_table(rows: dict[str, Cells], reasons: list[str]) -> str:
    """Lay the table out in Markdown."""
    names = ["from_backbone", *COLUMNS]
    lines = [f"| backbone | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    lines += [f"| `{kind}` | {' | '.join(cells[name] for name in names)} |" for kind, cells in rows.items()]
    whole = sum(set(cells.values()) == {"yes"} for cells in rows.values())
    lines += ["", f"{whole} of {len(rows)} in all columns, with transformers {transformers.__version__}.", ""]
    return "\n".join([*lines, *(f"- {reason}." for reason in reasons), ""])


def main() -> None:
    """Check the backbones that were named and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=VIDEO_BACKBONES, default=VIDEO_BACKBONES)
    parser.add_argument("--output", type=Path, help="file for the table, besides the screen")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    rows, reasons = {}, []
    for kind in arguments.only:
        with contextlib.redirect_stdout(io.StringIO()):  # what trainers print
            rows[kind], found = check_backbone(kind)
        reasons += found
        print(
            kind,
            ", ".join(f"{name}: {cell}" for name, cell in rows[kind].items() if cell != "yes") or "all",
            flush=True,
        )
    table = write_table(rows, reasons)
    print(f"\n{table}")
    if arguments.output:
        arguments.output.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
