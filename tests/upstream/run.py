"""Run transformers' own common tests against our classes: `python -m tests.upstream.run`.

The test files come from the source distribution of the installed transformers and are never part of this repository. Our
testers, in `testers/`, say how to make a tiny STORM and its inputs; `stubs/` stands in for what the distribution leaves out.
Tests that cannot hold here are listed in `skips.yaml`, each with its reason. The run fails when another test fails, and when a
listed test passes: then its line has to go. It needs `parameterized`, which those files import (the extra `upstream`).
"""

import argparse
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import yaml
from tests.upstream.source import PACKAGE, lay_out

from storm_hf.errors import DependencyError
from storm_hf.optional import require


ROOT = Path(__file__).parents[2]
SKIPS = Path(__file__).with_name("skips.yaml")


@dataclass(frozen=True)
class Verdict:
    """Outcome of one test: `passed`, `failed` or `skipped` by the test itself, and the last line of why."""

    name: str
    outcome: str
    reason: str = ""


def run_pytest(folder: Path, *, keyword: str) -> list[Verdict]:
    """Run the laid-out tests in a process of their own.

    Args:
        folder (`Path`):
            What [`~tests.upstream.source.lay_out`] wrote.
        keyword (`str`):
            As pytest's `-k`; empty for all.
    """
    report = folder / "report.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        str(folder / PACKAGE / "models"),
        "-q",
        "--tb=short",
        f"--junitxml={report}",
    ]
    command += [
        f"--rootdir={folder}",
        "-p",
        "no:cacheprovider",
        "-c",
        os.devnull,
        *(["-k", keyword] if keyword else []),
    ]
    path = os.pathsep.join([str(folder), str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, cwd=folder, check=False)
    return [read_verdict(case) for case in ElementTree.parse(report).getroot().iter("testcase")]


def read_verdict(case: ElementTree.Element) -> Verdict:
    """Outcome of one test, as pytest recorded it."""
    name = f"{case.get('classname', '').rpartition('.')[2]}.{case.get('name')}"
    for outcome, tags in (("failed", ("failure", "error")), ("skipped", ("skipped",))):
        for tag in tags:
            if (found := case.find(tag)) is not None:
                return Verdict(name, outcome, (found.get("message") or "").strip().partition("\n")[0])
    return Verdict(name, "passed")


def read_reasons() -> dict[str, str]:
    """From the names of the tests that may fail on this machine to why."""
    listed = yaml.safe_load(SKIPS.read_text(encoding="utf-8"))
    try:
        require("torchcodec.decoders")
    except DependencyError:
        return {**listed["always"], **listed["without_ffmpeg"]}
    return dict(listed["always"])


def judge(verdicts: list[Verdict], reasons: dict[str, str], *, is_whole: bool) -> list[str]:
    """Faults of a run: failures that are not listed, and lines that are not needed.

    Args:
        verdicts (`list[Verdict]`):
            What became of each test.
        reasons (`dict[str, str]`):
            From the names that may fail to why.
        is_whole (`bool`):
            Whether every test ran; otherwise nothing is said of lines that were not needed.
    """
    failed = {verdict.name: verdict.reason for verdict in verdicts if verdict.outcome == "failed"}
    wrong = [f"{name} failed: {reason}" for name, reason in failed.items() if name not in reasons]
    if is_whole:
        wrong += [f"{name} is listed in {SKIPS.name} but did not fail" for name in reasons if name not in failed]
    return wrong


def main() -> int:
    """Lay the tests out, run them, and say what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--source", type=Path, help="the source distribution of transformers, if it is here already")
    parser.add_argument("-k", dest="keyword", default="", help="only these tests, as pytest's -k")
    arguments = parser.parse_args()
    reasons = read_reasons()
    with tempfile.TemporaryDirectory(prefix="storm-upstream-") as folder:
        verdicts = run_pytest(lay_out(Path(folder), source=arguments.source), keyword=arguments.keyword)
    wrong = judge(verdicts, reasons, is_whole=not arguments.keyword)
    counts = Counter(verdict.outcome for verdict in verdicts)
    print(
        f"{counts['passed']} passed, {counts['failed']} failed ({len(reasons)} listed), {counts['skipped']} not for this model"
    )
    for line in wrong:
        print(line)
    return 1 if wrong or not counts["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
