"""Loads the finished checkpoint where storm_hf cannot be imported, and lets it answer real mp4 files again."""

import json
import os
import subprocess
import sys
from importlib.resources import files

from storm_hf.demo.folder import DemoFolder
from storm_hf.demo.measure import deep_indices
from storm_hf.demo.recipe import DemoRecipe
from storm_hf.demo.tasks import Report
from storm_hf.errors import CheckpointError
from storm_hf.evaluation.answering import read_option
from storm_hf.reporting import write_atomically
from storm_hf.target_trajectory import load_thoughts
from storm_hf.worlds import format_question
from storm_hf.writing import read_json


NUM_CLIPS = 64


def check_reload(folder: DemoFolder, recipe: DemoRecipe, report: Report) -> None:
    """Compare the answers of the checkpoint alone with those of the run. Worker.

    Raises:
        CheckpointError: If one differs.
    """
    tests = load_thoughts(folder.data)["test"]
    chosen = deep_indices(tests, recipe)[:NUM_CLIPS]
    rows = [tests[index] for index in chosen]
    questions = [{"video": row["video"], "text": format_question(row["question"], row["options"])} for row in rows]
    write_atomically(folder.path / "reload.json", json.dumps(questions))
    expected = [read_json(folder.arm("storm") / "results.json")["choices"][index] for index in chosen]
    texts = answer_without_storm_hf(folder)
    report(len(texts))
    answers = [read_option(text, row["options"]) for text, row in zip(texts, rows, strict=True)]
    different = [index for index, (one, other) in enumerate(zip(answers, expected, strict=True)) if one != other]
    if different:
        raise CheckpointError(
            f"The checkpoint in {folder.storm}, loaded without storm_hf, answers {len(different)} of {len(chosen)} clips "
            f"differently, the first one {answers[different[0]]!r} instead of {expected[different[0]]!r}."
        )


def answer_without_storm_hf(folder: DemoFolder) -> list[str]:
    """Let a fresh interpreter without storm_hf answer the questions in `reload.json`."""
    script = files("storm_hf.demo").joinpath("templates/standalone.py").read_text()
    environment = {**os.environ, "HF_MODULES_CACHE": str(folder.path / "hf_modules")}
    arguments = [sys.executable, "-c", script, str(folder.storm), str(folder.path / "reload.json")]
    finished = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)
    if finished.returncode:
        raise CheckpointError(
            f"The checkpoint in {folder.storm} does not load without storm_hf. The interpreter said:\n"
            f"{finished.stderr[-2000:]}"
        )
    return json.loads(finished.stdout.splitlines()[-1])
