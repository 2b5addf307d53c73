"""Measurements on held-out clips: accuracy, cost, nearest targets of the latents, and interventions on them.

Axes: N test clips, K latent steps, D hidden size.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from transformers import ProcessorMixin

from storm_hf.demo.folder import DemoFolder
from storm_hf.demo.recipe import DemoRecipe
from storm_hf.demo.record import FOLLOWS_DONOR
from storm_hf.diagnostics import ThoughtGallery
from storm_hf.evaluation.answering import Answer, accuracy, answer_questions
from storm_hf.evaluation.cost import measure_cost
from storm_hf.interventions.intervention import make_intervention
from storm_hf.interventions.kind import InterventionKind
from storm_hf.interventions.token_replacement import choose_donors
from storm_hf.model import StormForConditionalGeneration
from storm_hf.target_trajectory import TargetTrajectory
from storm_hf.training.prompts import PromptEncoder


NUM_TIMED = 24  # questions that are answered one by one to take the time


@dataclass(frozen=True)
class ArmMeasures:
    """Results of one arm.

    Args:
        accuracy (`float`):
            On the deep clips.
        by_depth (`dict[str, float]`):
            On the first `num_per_depth` clips of each depth.
        forward_passes (`float`):
            Mean calls of the language model until the first token of the answer.
        seconds_per_answer (`float`):
            Median, one question at a time.
        choices (`list[str | None]`):
            The option that each answer names.
    """

    accuracy: float
    by_depth: dict[str, float]
    forward_passes: float
    seconds_per_answer: float
    choices: list[str | None] = field(repr=False)


@dataclass(frozen=True)
class StormMeasures(ArmMeasures):
    """Results of STORM, with its use of latents.

    Args:
        interventions (`dict[str, float]`):
            Accuracy under each intervention, and how often the answer follows a donor's latents.
        top1_state (`float`):
            Share of latents whose nearest gallery target shows the true state.
        retrieval_chance (`float`):
            Retrieval accuracy of a random gallery target.
        cosine_raw (`float`):
            Mean cosine of the raw pooled features of random pairs of clips at the same step.
        cosine_used (`float`):
            The same of the targets that were trained on.
        cosine_reached (`float`):
            Mean cosine of latents and their own targets.
    """

    interventions: dict[str, float]
    top1_state: float
    retrieval_chance: float
    cosine_raw: float
    cosine_used: float
    cosine_reached: float


def measure_arm(
    model: StormForConditionalGeneration,
    processor: ProcessorMixin,
    tests: Sequence[dict[str, Any]],
    recipe: DemoRecipe,
    *,
    num_latents: int,
    max_new_tokens: int = 4,
) -> ArmMeasures:
    """Test an arm on all test clips, and take its cost on a few."""
    prompts = PromptEncoder(processor, model.config, num_latents)
    return measure_prompts(model, prompts, tests, recipe, max_new_tokens=max_new_tokens)


def measure_prompts(
    model: StormForConditionalGeneration,
    prompts: PromptEncoder,
    tests: Sequence[dict[str, Any]],
    recipe: DemoRecipe,
    *,
    max_new_tokens: int,
) -> ArmMeasures:
    """The same with an encoder of one's own."""
    answers = answer_questions(model, prompts, tests, max_new_tokens=max_new_tokens, batch_size=256)
    return _measures(model, prompts, tests, recipe, answers, max_new_tokens)


def _measures(
    model: StormForConditionalGeneration,
    prompts: PromptEncoder,
    tests: Sequence[dict[str, Any]],
    recipe: DemoRecipe,
    answers: list[Answer],
    max_new_tokens: int,
) -> ArmMeasures:
    deep = deep_indices(tests, recipe)
    cost = measure_cost(model, prompts, [tests[index] for index in deep[:NUM_TIMED]], max_new_tokens=max_new_tokens)
    by_depth = {}
    for depth in recipe.test_depths:
        chosen = [index for index, row in enumerate(tests) if int(row["depth"]) == depth][: recipe.num_per_depth]
        by_depth[str(depth)] = _accuracy(answers, tests, chosen)
    return ArmMeasures(
        accuracy=_accuracy(answers, tests, deep),
        by_depth=by_depth,
        forward_passes=cost.forward_passes,
        seconds_per_answer=cost.seconds,
        choices=[answer.choice for answer in answers],
    )


def measure_storm(
    model: StormForConditionalGeneration,
    processor: ProcessorMixin,
    tests: Sequence[dict[str, Any]],
    folder: DemoFolder,
    recipe: DemoRecipe,
) -> StormMeasures:
    """Test STORM as an arm, then replace its latents, and look up what they resemble."""
    from storm_hf.demo import data

    prompts = PromptEncoder(processor, model.config, recipe.num_latents)
    answers = answer_questions(model, prompts, tests, max_new_tokens=4, batch_size=256)
    measures = _measures(model, prompts, tests, recipe, answers, max_new_tokens=4)
    deep = deep_indices(tests, recipe)
    rows = [tests[index] for index in deep]
    latents = np.stack([np.asarray(answers[index].latents) for index in deep])  # (N, K, D)
    trajectory = TargetTrajectory.load(folder.arm("align"))
    targets = trajectory([row["thought_features"] for row in rows]).numpy()  # (N, K, D)
    raw = trajectory.pool([row["thought_features"] for row in rows]).float().numpy()
    interventions: dict[str, float] = {InterventionKind.own: measures.accuracy}
    interventions |= measure_interventions(model, prompts, rows, latents, recipe.seed, targets)
    gallery = make_gallery(data.dataset(folder, "validation", with_thoughts=True), trajectory, recipe)
    gallery.save(folder.storm)
    states = np.array([list(row["states"]) for row in rows])  # (N, K)
    np.savez_compressed(folder.path / "latents.npz", latents=latents.astype(np.float32), indices=np.array(deep))
    return StormMeasures(
        **vars(measures),
        interventions=interventions,
        top1_state=float((gallery.neighbours(latents, 1).state == states).mean()),
        retrieval_chance=gallery.chance(states),
        cosine_raw=pair_cosine(raw),
        cosine_used=pair_cosine(targets),
        cosine_reached=_cosine(latents, targets),
    )


def measure_open(
    model: StormForConditionalGeneration,
    prompts: PromptEncoder,
    tests: Sequence[dict[str, Any]],
    recipe: DemoRecipe,
    *,
    max_new_tokens: int = 4,
    trajectory: TargetTrajectory | None = None,
) -> dict[str, Any]:
    """Test an arm on the deep clips once more, asked without options.

    Args:
        model ([`StormForConditionalGeneration`]):
            The model.
        prompts ([`~storm_hf.training.prompts.PromptEncoder`]):
            Encodes the questions.
        tests (`Sequence`):
            Test rows whose encoded prompts are open questions.
        recipe ([`DemoRecipe`]):
            Says which clips are deep.
        max_new_tokens (`int`, *optional*, defaults to `4`):
            Longest answer.
        trajectory ([`~storm_hf.target_trajectory.TargetTrajectory`], *optional*):
            Of the latents; with it the latents are replaced too.

    Returns:
        `dict[str, Any]`: `accuracy`, and `interventions` as in [`StormMeasures`].
    """
    rows = [tests[index] for index in deep_indices(tests, recipe)]
    answers = answer_questions(model, prompts, rows, max_new_tokens=max_new_tokens, batch_size=256)
    measured: dict[str, Any] = {"accuracy": accuracy(answers, rows)}
    if trajectory is not None:
        latents = np.stack([np.asarray(answer.latents) for answer in answers])  # (N, K, D)
        targets = trajectory([row["thought_features"] for row in rows]).numpy()  # (N, K, D)
        replaced = measure_interventions(model, prompts, rows, latents, recipe.seed, targets)
        measured["interventions"] = {InterventionKind.own: measured["accuracy"], **replaced}
    return measured


def measure_interventions(
    model: StormForConditionalGeneration,
    prompts: PromptEncoder,
    rows: Sequence[dict[str, Any]],
    latents: np.ndarray,
    seed: int,
    targets: np.ndarray | None = None,
) -> dict[str, float]:
    """Answer again under each intervention.

    Args:
        model ([`StormForConditionalGeneration`]):
            The model.
        prompts ([`~storm_hf.training.prompts.PromptEncoder`]):
            Encodes the questions.
        rows (`Sequence`):
            The questions.
        latents (`np.ndarray` of shape `(num_questions, num_latents, hidden_size)`):
            The model's own.
        seed (`int`):
            Of noise and donors.
        targets (`np.ndarray` of the shape of `latents`, *optional*):
            The true thoughts, for `oracle`.

    Returns:
        `dict[str, float]`: Accuracy under each intervention, and `follows_donor`, the share of answers that become the donor's.
    """
    kind, donors = InterventionKind, choose_donors(rows, seed)

    def answer_under(kind: InterventionKind) -> list[Answer]:
        intervention = make_intervention(kind, latents, donors=donors, targets=targets, seed=seed)
        return answer_questions(model, prompts, rows, max_new_tokens=4, batch_size=256, intervene=intervention)

    kinds = [kind.zero, kind.noise_per_dataset, kind.mean_over_questions, kind.latents_only]
    kinds += [] if targets is None else [kind.oracle]
    results: dict[str, float] = {kind: accuracy(answer_under(kind), rows) for kind in kinds}
    answers = answer_under(kind.donor)
    has_donor = [index for index, donor in enumerate(donors) if donor != index]
    follows = [answers[index].choice == rows[donors[index]]["answer"] for index in has_donor]
    return {**results, FOLLOWS_DONOR: float(np.mean(follows))}


def make_gallery(rows: Any, trajectory: TargetTrajectory, recipe: DemoRecipe) -> ThoughtGallery:
    """One thought frame of each validation clip, at a random step, with its target."""
    from storm_hf.video import read_video

    steps = np.random.default_rng(recipe.seed).integers(recipe.num_latents, size=len(rows))
    targets = trajectory([row["thought_features"] for row in rows]).numpy()
    chosen = list(zip(rows, steps.tolist(), strict=True))
    return ThoughtGallery(
        latents=targets[np.arange(len(steps)), steps],
        states=[str(row["states"][step]) for row, step in chosen],
        frames=np.stack([read_video(str(row["thought_video"])).frames[2 * step + 1] for row, step in chosen]),
    )


def deep_indices(tests: Sequence[dict[str, Any]], recipe: DemoRecipe) -> list[int]:
    """Positions of the deep clips."""
    return [index for index, row in enumerate(tests) if int(row["depth"]) in recipe.deep]


def pair_cosine(vectors: np.ndarray) -> float:
    """Mean cosine between random pairs of clips at the same step; vectors (N, K, D)."""
    return _cosine(vectors, np.roll(vectors, 1, axis=0))


def _cosine(left: np.ndarray, right: np.ndarray) -> float:
    norms = np.linalg.norm(left, axis=-1) * np.linalg.norm(right, axis=-1)
    return float(((left * right).sum(axis=-1) / np.maximum(norms, 1e-12)).mean())


def _accuracy(answers: list[Answer], tests: Sequence[dict[str, Any]], indices: Sequence[int]) -> float:
    return accuracy([answers[index] for index in indices], [tests[index] for index in indices])
