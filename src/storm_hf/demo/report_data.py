"""Data of the demo's report: the numbers of `report.json`, and the contents of the page beyond them.

Axes: H height, W width, in pixels; K latent steps.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from storm_hf.atomic import read_json
from storm_hf.demo.folder import DemoFolder
from storm_hf.demo.language import read_language, recorded_rows
from storm_hf.demo.recipe import DemoRecipe
from storm_hf.demo.variants import TITLES
from storm_hf.diagnostics import ThoughtGallery
from storm_hf.errors import DatasetError
from storm_hf.evaluation.language import LanguageReport
from storm_hf.target_trajectory import load_thoughts
from storm_hf.video import read_video
from storm_hf.worlds import make_world


REPORTED = ("direct", "align", "storm")  # variants of every `report.json`
_ALSO_REPORTED = ("chain_of_thought",)  # where it was trained
_REPORTED_BY_DEPTH = ("direct", "storm")
FOLLOWS_DONOR = "follows_donor"
INTERVENTIONS = ("own", "zero", "noise_per_dataset", "mean_over_questions", FOLLOWS_DONOR, "oracle")
NUM_EXAMPLES = 3
_FRAMES_PER_STEP = 2
_BACKBONES = {
    "tiny": "a randomly initialised Qwen2.5-VL",
    "smollm2": "a Qwen2.5-VL whose language model is SmolLM2-135M-Instruct, pretrained on text, and whose vision tower is "
    "randomly initialised",
}
# Names in runs of earlier versions.
_RENAMED = {
    "none": "own",
    "noise": "noise_per_dataset",
    "mean": "mean_over_questions",
    "swap_follows_donor": FOLLOWS_DONOR,
    "without_clip": "latents_only",
}


@dataclass(frozen=True, kw_only=True)
class VariantResult:
    """Accuracy and cost of one variant.

    Args:
        accuracy (`float`):
            Share of correct answers, 0 to 1.
        forward_passes (`float`):
            Mean passes through the model until the first answer token.
        seconds_per_answer (`float`):
            Wall time of one answer.
        train_seconds (`float`):
            Wall time of its training, without that of the base.
    """

    accuracy: float
    forward_passes: float
    seconds_per_answer: float
    train_seconds: float

    @classmethod
    def of(cls, results: Mapping[str, Any]) -> "VariantResult":
        """Take the part of a variant's `results.json` that the report shows."""
        return cls(**{field.name: results[field.name] for field in fields(cls)})


def read_interventions(measured: Mapping[str, float]) -> dict[str, float]:
    """Read the interventions of a variant's `results.json`, also of one that was written with earlier names.

    Args:
        measured (`Mapping[str, float]`):
            From an intervention to the accuracy, and `follows_donor`, the share of answers that become the correct one of the
            clip whose latents were fed.
    """
    return {_RENAMED.get(name, name): share for name, share in measured.items()}


@dataclass(frozen=True)
class Retrieval:
    """Retrieval accuracy: the share of latents whose nearest target shows the true state.

    Args:
        top1_state (`float`):
            Share of latents for which it does, 0 to 1.
        gallery (`int`):
            Targets of other clips that are searched.
        chance (`float`):
            Retrieval accuracy of a random target of the gallery.
    """

    top1_state: float
    gallery: int
    chance: float


@dataclass(frozen=True)
class OpenQuestions:
    """The deep clips asked about in another form: without options, or in wordings that were never trained on.

    Args:
        arms (`Mapping[str, float]`):
            Accuracy of each variant.
        interventions (`Mapping[str, float]`):
            Accuracy of STORM under each intervention, and `follows_donor`; see [`read_interventions`].
    """

    arms: Mapping[str, float]
    interventions: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """The numbers of a demo, field for field what `report.json` says.

    Args:
        world (`str`):
            Name of the world.
        seed (`int`):
            Seed of the run.
        chance (`float`):
            Accuracy of guessing.
        num_test (`int`):
            Held-out deep clips that variants and interventions are tested on.
        num_latents (`int`):
            Length K of the rollout.
        arms (`Mapping[str, VariantResult]`):
            `direct`, `align` and `storm`, and `chain_of_thought` if it was trained.
        interventions (`Mapping[str, float]`):
            Accuracy of STORM under each intervention, and `follows_donor`; see [`read_interventions`].
        by_depth (`Mapping[str, Mapping[str, float]]`):
            From a depth to the accuracy of `direct` and `storm`.
        retrieval (`Retrieval`):
            Nearest targets of the latents.
        wall_seconds (`float`):
            Time the run took.
        cpu_seconds (`float`):
            Time its processes computed.
        peak_rss_mib (`float`):
            Most memory it held, in MiB.
        checkpoint (`str`):
            Folder of the trained model.
        open ([`OpenQuestions`], *optional*):
            The same clips asked about in another form; all other figures are of the usual questions, with options.

    Raises:
        DatasetError: If a variant is missing or superfluous, a share does not lie between 0 and 1, or a number is not
            finite.
    """

    world: str
    seed: int
    chance: float
    num_test: int
    num_latents: int
    arms: Mapping[str, VariantResult]
    interventions: Mapping[str, float]
    by_depth: Mapping[str, Mapping[str, float]]
    retrieval: Retrieval
    wall_seconds: float
    cpu_seconds: float
    peak_rss_mib: float
    checkpoint: str
    open: OpenQuestions | None = None

    def __post_init__(self) -> None:
        check_names("arms", self.arms, REPORTED, _ALSO_REPORTED)
        check_names("interventions", self.interventions, INTERVENTIONS)
        if self.open is not None:
            check_names("the arms of open", self.open.arms, tuple(self.arms))
            check_names("the interventions of open", self.open.interventions, INTERVENTIONS)
        for depth, accuracy_of in self.by_depth.items():
            check_names(f"by_depth at {depth}", accuracy_of, _REPORTED_BY_DEPTH)
        for name, number in _numbers(asdict(self)):
            _check_number(name, number)

    def to_json(self) -> str:
        """Write the report as JSON, in the order of the fields."""
        return json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"


def check_names(
    what: str, given: Mapping[str, object], expected: tuple[str, ...], optional: tuple[str, ...] = ()
) -> None:
    """Make sure that a mapping names what it should, what it may, and nothing else.

    Raises:
        DatasetError: If it does not.
    """
    if set(given) - set(optional) != set(expected) - set(optional):
        raise DatasetError(f"Expected {what} to name {', '.join(expected)} but got {', '.join(given) or 'nothing'}.")


def _numbers(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            yield f"{prefix}{name}", value


def _check_number(name: str, number: float) -> None:
    group, _, last = name.rpartition(".")
    is_share = last in ("accuracy", "chance", "top1_state") or group.startswith(("interventions", "by_depth", "open"))
    if not math.isfinite(number) or number < 0 or (is_share and number > 1):
        expected = "a share from 0 to 1" if is_share else "a finite number of 0 or more"
        raise DatasetError(f"Expected {name} of the report to be {expected} but got {number}.")


@dataclass(frozen=True)
class VariantTraining:
    """Training of one variant: its total steps, and the parameters they change."""

    num_updates: int
    num_parameters: int


@dataclass(frozen=True, eq=False)
class Neighbour:
    """A thought frame that a latent resembles, found among those of other clips.

    Args:
        frame (`np.ndarray` of shape `(height, width, 3)`):
            RGB pixels, `uint8`.
        state (`str`):
            State that the frame shows, in a word.
        similarity (`float`):
            Cosine between the latent and the target of that frame.
    """

    frame: np.ndarray
    state: str
    similarity: float


@dataclass(frozen=True, eq=False)
class ImaginedStep:
    """One latent, read by what it resembles most.

    Args:
        neighbours (`tuple[Neighbour, ...]`):
            The nearest frames of the gallery, the nearest first.
        share (`float`):
            Share of the similarity (softmax of the cosines over the gallery) that falls on frames with the state of
            the nearest, 0 to 1.
        true_frame (`np.ndarray` of shape `(height, width, 3)`):
            Frame of this clip's own thought video at this step, which the model never sees.
        true_state (`str`):
            State that the frame shows, in a word.
    """

    neighbours: tuple[Neighbour, ...]
    share: float
    true_frame: np.ndarray
    true_state: str

    @property
    def is_right(self) -> bool:
        """True if the nearest frame shows the true state."""
        return self.neighbours[0].state == self.true_state


@dataclass(frozen=True, eq=False)
class ExampleClip:
    """One test clip with its question, shown on the page.

    Args:
        clip (`Path`):
            mp4 file that the model saw.
        thought (`Path`):
            mp4 file that the simulator made of the reasoning.
        question (`str`):
            The question.
        options (`tuple[str, ...]`):
            The closed set of answers.
        answer (`str`):
            The correct one.
        given (`Mapping[str, str]`):
            From the name of a variant (`storm`, `direct`) to its answer.
        steps (`tuple[ImaginedStep, ...]`):
            One for each latent.
    """

    clip: Path
    thought: Path
    question: str
    options: tuple[str, ...]
    answer: str
    given: Mapping[str, str]
    steps: tuple[ImaginedStep, ...]


@dataclass(frozen=True)
class TargetCosines:
    """Similarity of the targets of different thoughts, as the alignment loss sees them.

    Args:
        raw (`float`):
            Mean cosine between the raw pooled features of two random thought videos at the same step.
        used (`float`):
            The same of the targets that this run trained on.
        reached (`float`):
            Mean cosine between the model's latents and their own targets on held-out clips.
    """

    raw: float
    used: float
    reached: float


@dataclass(frozen=True, kw_only=True, eq=False)
class DemoStory:
    """Contents of the page that are not in `report.json`.

    Args:
        recipe ([`~storm_hf.demo.recipe.DemoRecipe`]):
            Recipe of the run.
        training (`Mapping[str, VariantTraining]`):
            From the name of each variant to its training.
        examples (`tuple[ExampleClip, ...]`):
            At least one; the first introduces the task.
        cosines (`TargetCosines`):
            Similarity of the targets.
        machine (`str`):
            Machine of the run, such as `"2 CPU cores"`.
        backbone (`str`):
            Trained model, such as `"a randomly initialised Qwen2.5-VL"`.
        command (`str`):
            The command that makes this page again.
        versions (`Mapping[str, str]`):
            From package to version.
        frames_per_step (`int`, *optional*, defaults to `2`):
            Frames of a clip that make up one step. The stills show the last of each.
        extra_variants (`Mapping[str, VariantResult]`, *optional*):
            Variants beside those of the report, such as `terse_chain`.
        extra_open (`Mapping[str, float]`, *optional*):
            Accuracy of these variants in the second form of the question.
        extra_by_depth (`Mapping[str, Mapping[str, float]]`, *optional*):
            From a variant that the report does not list by depth to its accuracy at each depth, such as
            `{"chain_of_thought": {"0": 1.0}}`.
        language (`Mapping[str, LanguageReport]`, *optional*):
            From a variant to its plain language beside that of the pretrained backbone; empty where nothing was pretrained.
        num_plain_rows (`int`, *optional*, defaults to `0`):
            Number of plain rows that held it to the backbone.
        replies (`Mapping[str, tuple[int, int]]`, *optional*):
            From a form of the reply to the correct answers and the questions of STORM in the second form; empty where there is one.
    """

    recipe: DemoRecipe
    training: Mapping[str, VariantTraining]
    examples: tuple[ExampleClip, ...]
    cosines: TargetCosines
    machine: str
    backbone: str
    command: str
    versions: Mapping[str, str]
    frames_per_step: int = 2
    extra_variants: Mapping[str, VariantResult] = field(default_factory=dict)
    extra_open: Mapping[str, float] = field(default_factory=dict)
    extra_by_depth: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    language: Mapping[str, LanguageReport] = field(default_factory=dict)
    num_plain_rows: int = 0
    replies: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def read_report(folder: DemoFolder, recipe: DemoRecipe, out: Path) -> DemoReport:
    """Read the numbers that the workers of a finished run wrote.

    Args:
        folder ([`DemoFolder`]):
            Folder of the run.
        recipe ([`DemoRecipe`]):
            Its recipe.
        out (`Path`):
            The folder as the user named it.
    """
    results = {name: one for name, one in _results(folder, recipe).items() if name in (*REPORTED, *_ALSO_REPORTED)}
    storm, usage = results["storm"], folder.usage()
    return DemoReport(
        world=recipe.world,
        seed=recipe.seed,
        chance=make_world(recipe.world, **recipe.knobs).chance,
        num_test=sum(recipe.test_depths[depth] for depth in recipe.deep),
        num_latents=recipe.num_latents,
        arms={name: VariantResult.of(one) for name, one in results.items()},
        interventions=_reported(storm["interventions"]),
        by_depth={
            depth: {name: results[name]["by_depth"][depth] for name in _REPORTED_BY_DEPTH}
            for depth in storm["by_depth"]
        },
        retrieval=Retrieval(storm["top1_state"], recipe.num_gallery, storm["retrieval_chance"]),
        open=OpenQuestions(
            arms={name: one["open"]["accuracy"] for name, one in results.items()},
            interventions=_reported(storm["open"]["interventions"]),
        ),
        wall_seconds=usage.wall_seconds,
        cpu_seconds=usage.cpu_seconds,
        peak_rss_mib=usage.peak_rss_mib,
        checkpoint=str(out / folder.storm.name),
    )


def _reported(measured: Mapping[str, float]) -> dict[str, float]:
    known = read_interventions(measured)
    return {name: known[name] for name in INTERVENTIONS}


def read_story(
    folder: DemoFolder, recipe: DemoRecipe, command: str, machine: str, versions: Mapping[str, str]
) -> DemoStory:
    """Read the rest of the page.

    Args:
        folder ([`DemoFolder`]):
            Folder of a finished run.
        recipe ([`DemoRecipe`]):
            Its recipe.
        command (`str`):
            Command that reproduces the page.
        machine (`str`):
            Machine of the run.
        versions (`Mapping[str, str]`):
            From package to version.
    """
    results = _results(folder, recipe)
    storm, terse = results["storm"], {name: one for name, one in results.items() if name == "terse_chain"}
    return DemoStory(
        recipe=recipe,
        training={name: VariantTraining(one["num_updates"], one["num_parameters"]) for name, one in results.items()},
        examples=_examples(folder, results),
        cosines=TargetCosines(raw=storm["cosine_raw"], used=storm["cosine_used"], reached=storm["cosine_reached"]),
        machine=machine,
        backbone=_BACKBONES[recipe.backbone],
        command=command,
        versions=versions,
        frames_per_step=_FRAMES_PER_STEP,
        extra_variants={name: VariantResult.of(one) for name, one in terse.items()},
        extra_open={name: one["open"]["accuracy"] for name, one in terse.items() if "open" in one},
        extra_by_depth={name: one["by_depth"] for name, one in results.items() if name == "chain_of_thought"},
        language={name: read_language(one) for name, one in results.items() if "language" in one},
        replies=storm.get("open", {}).get("by_reply", {}),
        num_plain_rows=len(recorded_rows(folder)) if recipe.keep_language else 0,
    )


def _results(folder: DemoFolder, recipe: DemoRecipe) -> dict[str, dict[str, Any]]:
    """Read the results of every variant that the recipe trains, by name."""
    trained = {"align", *recipe.variants}
    return {name: read_json(folder.variant(name) / "results.json") for name in TITLES if name in trained}


def _examples(folder: DemoFolder, results: Mapping[str, Any]) -> tuple[ExampleClip, ...]:
    """Choose the first deep test clips of different answers, and find the frames that each latent resembles."""
    tests = load_thoughts(folder.data)["test"]
    gallery = ThoughtGallery.open(folder.storm)
    with np.load(folder.path / "latents.npz") as stored:
        latents = dict(zip(stored["indices"].tolist(), stored["latents"], strict=True))  # position -> (K, D)
    chosen: dict[str, int] = {}
    for index in sorted(latents, key=lambda index: -int(tests[index]["depth"])):
        chosen.setdefault(tests[index]["answer"], index)
        if len(chosen) == NUM_EXAMPLES:
            break
    return tuple(_example(tests[index], index, latents[index], gallery, results) for index in chosen.values())


def _example(
    row: Mapping[str, Any], index: int, latents: np.ndarray, gallery: ThoughtGallery, results: Mapping[str, Any]
) -> ExampleClip:
    thought = read_video(row["thought_video"]).frames
    neighbours = gallery.neighbours(latents, num_neighbours=3)
    steps = tuple(
        ImaginedStep(
            neighbours=tuple(
                Neighbour(gallery.frames[entry], str(gallery.states[entry]), float(similarity))
                for entry, similarity in zip(neighbours.index[step], neighbours.similarity[step], strict=True)
            ),
            share=float(neighbours.share[step]),
            true_frame=thought[_FRAMES_PER_STEP * step + _FRAMES_PER_STEP - 1],
            true_state=row["states"][step],
        )
        for step in range(len(latents))
    )
    return ExampleClip(
        clip=row["video"],
        thought=row["thought_video"],
        question=row["question"],
        options=tuple(row["options"]),
        answer=row["answer"],
        given={name: results[name]["choices"][index] or "nothing readable" for name in ("storm", "direct")},
        steps=steps,
    )
