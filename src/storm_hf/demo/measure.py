"""Measurements on held-out clips: accuracy, cost, nearest targets of the latents, and interventions on them.

Axes: N test clips, K latent steps, D hidden size.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, get_args

import numpy as np
from transformers import ProcessorMixin

from storm_hf.atomic import read_json
from storm_hf.demo import data
from storm_hf.demo.folder import DemoFolder
from storm_hf.demo.recipe import DemoRecipe
from storm_hf.demo.report_data import FOLLOWS_DONOR
from storm_hf.demo.tasks import Report
from storm_hf.demo.variants import Variant
from storm_hf.diagnostics import ThoughtGallery
from storm_hf.diagnostics.replay import answers_under
from storm_hf.errors import CheckpointError
from storm_hf.evaluation.batch import (
    Answer,
    accuracy,
    answer_questions,
    measure_cost,
    read_option,
)
from storm_hf.inputs.prompts import PromptEncoder, Row
from storm_hf.interventions.intervention import Intervention, make_intervention
from storm_hf.interventions.kind import InterventionKind
from storm_hf.interventions.token_replacement import choose_donors, usual_wording
from storm_hf.model import StormForConditionalGeneration
from storm_hf.reporting import write_atomically
from storm_hf.target_trajectory import TargetTrajectory, load_thoughts
from storm_hf.video import read_video
from storm_hf.worlds import format_question
from storm_hf.worlds.asking import ReplyForm, reply_form


NUM_TIMED = 24  # questions that are answered one by one to take the time
NUM_RELOADED = 64  # clips that the checkpoint answers again without storm_hf
_ANSWER_TOKENS = 4  # of an answer after latents: a word and the end of the turn, and some to spare


@dataclass(frozen=True, eq=False)
class Examinee:
    """A trained model and the form of its questions and answers.

    Args:
        model ([`StormForConditionalGeneration`]):
            The model.
        prompts ([`~storm_hf.inputs.prompts.PromptEncoder`]):
            Encoder of the questions.
        max_new_tokens (`int`, *optional*, defaults to `4`):
            Length of the longest answer.
    """

    model: StormForConditionalGeneration
    prompts: PromptEncoder
    max_new_tokens: int = _ANSWER_TOKENS

    def answer(self, rows: Sequence[Row]) -> list[Answer]:
        """Answer the questions of `rows`."""
        return answer_questions(self.model, self.prompts, rows, max_new_tokens=self.max_new_tokens, batch_size=256)

    def answer_under(self, rows: Sequence[Row], interventions: Mapping[str, Intervention]) -> dict[str, list[Answer]]:
        """Answer the questions of `rows` under each intervention, reading their prompts once."""
        return answers_under(self.model, self.prompts, rows, interventions, max_new_tokens=self.max_new_tokens)


def measure_variant(
    folder: DemoFolder,
    recipe: DemoRecipe,
    variant: Variant,
    model: StormForConditionalGeneration,
    processor: ProcessorMixin,
    *,
    trajectory: TargetTrajectory | None = None,
    with_interventions: bool = True,
) -> dict[str, Any]:
    """Test a variant on all test clips, and on the deep ones in the second form and with replaced latents.

    Args:
        folder ([`DemoFolder`]):
            Folder of the test clips.
        recipe ([`DemoRecipe`]):
            Recipe of that folder.
        variant ([`Variant`]):
            The variant.
        model ([`StormForConditionalGeneration`]):
            Its model.
        processor ([`~transformers.ProcessorMixin`]):
            Its processor.
        trajectory ([`~storm_hf.target_trajectory.TargetTrajectory`], *optional*):
            Targets that its latents were aligned with.
        with_interventions (`bool`, *optional*, defaults to `True`):
            Whether latents are replaced, if it has any.

    Returns:
        `dict[str, Any]`: As [`measure_accuracy`], and `open` with the `accuracy` on the deep clips asked in the second form. In both,
        `interventions` has the accuracy under each kind, and `follows_donor`, the share of answers that become the donor's. For a
        variant that the page shows there are also its retrieval accuracy and the cosines of its targets.
    """
    rows = list(data.dataset(folder, "test", with_thoughts=True))
    deep = deep_indices(rows, recipe)
    open_tests = data.tests_in_second_form(folder, recipe)
    open_rows = [open_tests[index] for index in deep]
    asked_in_all = rows if recipe.wordings == "usual" else [*rows, *open_rows]
    longest = _longest_answer(recipe, variant, asked_in_all, processor)
    examinee = Examinee(model, variant.make_prompts(processor, model.config), longest)
    answers, open_answers = examinee.answer(rows), examinee.answer(open_rows)
    results = measure_accuracy(examinee, rows, answers, recipe)
    results["open"] = {"accuracy": accuracy(open_answers, open_rows)}
    if recipe.wordings != "usual":
        results["open"]["by_reply"] = count_by_reply(open_answers, open_rows)
    if variant.has_latents and with_interventions:
        asked, said = [rows[index] for index in deep], [answers[index] for index in deep]
        results["interventions"] = _measure_interventions(examinee, asked, said, recipe.seed, trajectory)
        results["open"]["interventions"] = _measure_interventions(
            examinee, open_rows, open_answers, recipe.seed, trajectory
        )
        if variant.is_shown and trajectory is not None:
            results |= _describe_latents(folder, recipe, trajectory, asked, said)
            np.savez_compressed(folder.path / "latents.npz", latents=_stack_latents(said), indices=np.array(deep))
    return results


def _longest_answer(recipe: DemoRecipe, variant: Variant, rows: Sequence[Row], processor: ProcessorMixin) -> int:
    """Count the tokens of the longest answer, with a few to spare."""
    if variant.has_latents and recipe.wordings == "usual":
        return _ANSWER_TOKENS
    texts = [str(row["answer"]) if variant.chain is None else f"{row[variant.chain]} {row['answer']}" for row in rows]
    return max(len(ids) for ids in processor.tokenizer(texts, add_special_tokens=False)["input_ids"]) + 4


def measure_accuracy(
    examinee: Examinee, rows: Sequence[Row], answers: Sequence[Answer], recipe: DemoRecipe
) -> dict[str, Any]:
    """Compute the accuracy of answers to all test clips, and measure the cost of a few.

    Returns:
        `dict[str, Any]`: `accuracy` on the deep clips, `by_depth` on the first `num_per_depth` clips of each depth,
        `forward_passes` until the first token of the answer and `seconds_per_answer` as in
        [`~storm_hf.evaluation.batch.AnswerCost`], and `choices`, the option that each answer names.
    """
    deep = deep_indices(rows, recipe)
    timed = [rows[index] for index in deep[:NUM_TIMED]]
    cost = measure_cost(examinee.model, examinee.prompts, timed, max_new_tokens=examinee.max_new_tokens)

    def accuracy_of(indices: Sequence[int]) -> float:
        return accuracy([answers[index] for index in indices], [rows[index] for index in indices])

    by_depth = {}
    for depth in recipe.test_depths:
        indices = [index for index, row in enumerate(rows) if int(row["depth"]) == depth]
        by_depth[str(depth)] = accuracy_of(indices[: recipe.num_per_depth])
    return {
        "accuracy": accuracy_of(deep),
        "by_depth": by_depth,
        "forward_passes": cost.forward_passes,
        "seconds_per_answer": cost.seconds,
        "choices": [answer.choice for answer in answers],
    }


def count_by_reply(answers: Sequence[Answer], rows: Sequence[Row]) -> dict[str, tuple[int, int]]:
    """Count correct answers and questions by the form of the reply that is asked for.

    Args:
        answers (`Sequence`):
            The answers.
        rows (`Sequence`):
            Their questions, with the columns of [`~storm_hf.worlds.Asked`].
    """
    counts = dict.fromkeys(get_args(ReplyForm), (0, 0))
    for answer, row in zip(answers, rows, strict=True):
        form = reply_form(str(row["answer"]), str(row["outcome"]))
        correct, asked = counts[form]
        counts[form] = correct + (answer.choice == row["outcome"]), asked + 1
    return counts


def _measure_interventions(
    examinee: Examinee,
    rows: Sequence[Row],
    answers: Sequence[Answer],
    seed: int,
    trajectory: TargetTrajectory | None = None,
) -> dict[str, float]:
    """Answer again under each intervention.

    Args:
        examinee ([`Examinee`]):
            The model.
        rows (`Sequence`):
            The questions.
        answers (`Sequence`):
            Answers with the model's own latents.
        seed (`int`):
            Seed of noise and donors.
        trajectory ([`~storm_hf.target_trajectory.TargetTrajectory`], *optional*):
            Targets of the latents, for `oracle`.

    Returns:
        `dict[str, float]`: Accuracy under each intervention, and `follows_donor`, the share of answers that become the donor's.
    """
    kind, donors, latents = InterventionKind, choose_donors(rows, seed), _stack_latents(answers)
    targets = None if trajectory is None else _targets_of(trajectory, rows)
    kinds = [kind.zero, kind.noise_per_dataset, kind.mean_over_questions, kind.latents_only, kind.donor]
    kinds += [] if targets is None else [kind.oracle]
    replies = examinee.answer_under(
        rows, {one: make_intervention(one, latents, donors=donors, targets=targets, seed=seed) for one in kinds}
    )
    results: dict[str, float] = {kind.own: accuracy(answers, rows)}
    results |= {one: accuracy(replies[one], rows) for one in kinds if one != kind.donor}
    has_donor = [index for index, donor in enumerate(donors) if donor != index]
    follows = [replies[kind.donor][index].choice == usual_wording(rows[donors[index]])[1] for index in has_donor]
    return {**results, FOLLOWS_DONOR: float(np.mean(follows))}


def _describe_latents(
    folder: DemoFolder,
    recipe: DemoRecipe,
    trajectory: TargetTrajectory,
    rows: Sequence[Row],
    answers: Sequence[Answer],
) -> dict[str, float]:
    """Look up the states that latents resemble, in a gallery that is saved beside the model.

    Returns:
        `dict[str, float]`: `top1_state`, the share of latents whose nearest target of the gallery shows the true state;
        `retrieval_chance`, that of a random target; and mean cosines: `cosine_raw` and `cosine_used` between the raw and the
        used targets of random pairs of clips at the same step, `cosine_reached` between latents and their own targets.
    """
    latents, targets = _stack_latents(answers), _targets_of(trajectory, rows)
    raw = trajectory.pool([row["thought_features"] for row in rows]).float().numpy()
    gallery = make_gallery(list(data.dataset(folder, "validation", with_thoughts=True)), trajectory, recipe)
    gallery.save(folder.storm)
    states = np.array([list(row["states"]) for row in rows])  # (N, K)
    return {
        "top1_state": float((gallery.neighbours(latents, 1).state == states).mean()),
        "retrieval_chance": gallery.chance(states),
        "cosine_raw": pair_cosine(raw),
        "cosine_used": pair_cosine(targets),
        "cosine_reached": _cosine(latents, targets),
    }


def make_gallery(rows: Sequence[Row], trajectory: TargetTrajectory, recipe: DemoRecipe) -> ThoughtGallery:
    """Collect one thought frame of each validation clip, at a random step, with its target."""
    steps = np.random.default_rng(recipe.seed).integers(recipe.num_latents, size=len(rows))
    targets = _targets_of(trajectory, rows)
    chosen = list(zip(rows, steps.tolist(), strict=True))
    return ThoughtGallery(
        latents=targets[np.arange(len(steps)), steps],
        states=[str(row["states"][step]) for row, step in chosen],
        frames=np.stack([read_video(str(row["thought_video"])).frames[2 * step + 1] for row, step in chosen]),
    )


def deep_indices(rows: Sequence[Row], recipe: DemoRecipe) -> list[int]:
    """List the positions of the deep clips."""
    return [index for index, row in enumerate(rows) if int(row["depth"]) in recipe.deep]


def _stack_latents(answers: Sequence[Answer]) -> np.ndarray:
    """Stack the latents of answers, (N, K, D)."""
    return np.stack([np.asarray(answer.latents) for answer in answers])


def _targets_of(trajectory: TargetTrajectory, rows: Sequence[Row]) -> np.ndarray:
    """Compute the targets of rows with thoughts, (N, K, D)."""
    return trajectory([row["thought_features"] for row in rows]).numpy()


def pair_cosine(vectors: np.ndarray) -> float:
    """Compute the mean cosine between random pairs of clips at the same step; vectors (N, K, D)."""
    return _cosine(vectors, np.roll(vectors, 1, axis=0))


def _cosine(left: np.ndarray, right: np.ndarray) -> float:
    norms = np.linalg.norm(left, axis=-1) * np.linalg.norm(right, axis=-1)
    return float(((left * right).sum(axis=-1) / np.maximum(norms, 1e-12)).mean())


def check_reload(folder: DemoFolder, recipe: DemoRecipe, report: Report) -> None:
    """Compare the answers of the checkpoint alone with those of the run. Worker.

    Raises:
        CheckpointError: If one differs.
    """
    tests = load_thoughts(folder.data)["test"]
    chosen = deep_indices(tests, recipe)[:NUM_RELOADED]
    rows = [tests[index] for index in chosen]
    questions = [{"video": row["video"], "text": format_question(row["question"], row["options"])} for row in rows]
    write_atomically(folder.path / "reload.json", json.dumps(questions))
    expected = [read_json(folder.variant("storm") / "results.json")["choices"][index] for index in chosen]
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
