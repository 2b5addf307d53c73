"""A report and its story with made-up numbers, beside real clips of the shuffle world."""

import dataclasses
from pathlib import Path

from storm_hf.demo import demo_recipe
from storm_hf.demo.report_data import (
    INTERVENTIONS,
    DemoReport,
    DemoStory,
    ExampleClip,
    ImaginedStep,
    Neighbour,
    OpenQuestions,
    Retrieval,
    TargetCosines,
    VariantResult,
    VariantTraining,
)
from storm_hf.demo.variants import TITLES
from storm_hf.video import write_video
from storm_hf.worlds import make_world


DIRECT_BY_DEPTH = (1.0, 1.0, 0.797, 0.484, 0.375, 0.344, 0.25)
STORM_BY_DEPTH = (1.0, 1.0, 1.0, 1.0, 0.984, 1.0, 0.984)


def result(accuracy: float, forward_passes: float = 1.0) -> VariantResult:
    return VariantResult(
        accuracy=accuracy,
        forward_passes=forward_passes,
        seconds_per_answer=0.0034 * forward_passes,
        train_seconds=61.5,
    )


def interventions(*shares: float) -> dict[str, float]:
    return dict(zip(INTERVENTIONS, shares, strict=True))


def made_up_report(storm: float = 0.9961, direct: float = 0.2832, **replaced: object) -> DemoReport:
    """Numbers of a run that worked, unless some are replaced."""
    values: dict[str, object] = {
        "world": "shuffle",
        "seed": 0,
        "chance": 0.25,
        "num_test": 512,
        "num_latents": 6,
        "arms": {
            "direct": result(direct),
            "chain_of_thought": result(0.998, 62.0),
            "align": result(0.8711, 8.0),
            "storm": result(storm, 8.0),
        },
        "interventions": interventions(storm, 0.2578, 0.2402, 0.2676, 0.9941, 1.0),
        "by_depth": {
            str(depth): {"direct": direct, "storm": storm}
            for depth, (direct, storm) in enumerate(zip(DIRECT_BY_DEPTH, STORM_BY_DEPTH, strict=True))
        },
        "retrieval": Retrieval(top1_state=0.9883, gallery=256, chance=0.2514),
        "wall_seconds": 492.3,
        "cpu_seconds": 803.7,
        "peak_rss_mib": 2310.4,
        "checkpoint": "runs/demo/storm",
        "open": OpenQuestions(
            arms={"direct": 0.2715, "chain_of_thought": 0.9961, "align": 0.8594, "storm": 0.9902},
            interventions=interventions(0.9902, 0.2617, 0.2441, 0.252, 0.9883, 1.0),
        ),
    }
    return DemoReport(**values | replaced)


def made_up_story(folder: Path, num_examples: int = 1, **replaced: object) -> DemoStory:
    """A story whose clips are real files in `folder`."""
    training = VariantTraining(num_updates=400, num_parameters=921_344)
    values: dict[str, object] = {
        "recipe": demo_recipe("shuffle"),
        "training": dict.fromkeys(TITLES, training),
        "examples": tuple(example(folder, seed) for seed in range(num_examples)),
        "cosines": TargetCosines(raw=0.987, used=0.005, reached=0.912),
        "machine": "2 CPU cores",
        "backbone": "a randomly initialised Qwen2.5-VL",
        "command": "storm demo --out runs/demo --seed 0",
        "versions": {"storm-hf": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
        "extra_variants": {"terse_chain": result(0.9922, 8.0)},
        "extra_open": {"terse_chain": 0.9844},
        "extra_by_depth": {"chain_of_thought": {str(depth): 1.0 for depth in range(7)}},
    }
    return DemoStory(**values | replaced)


def example(folder: Path, seed: int) -> ExampleClip:
    """An episode as files, whose third latent imagines a wrong state."""
    world = make_world("shuffle")
    episode, other = world.episode(seed, depth=6), world.episode(seed + 100, depth=6)
    frames, other_frames = episode.thought[1::2], other.thought[1::2]
    steps = tuple(
        ImaginedStep(
            neighbours=(
                Neighbour(other_frames[2], other.states[2], 0.61)
                if step == 2
                else Neighbour(frames[step], episode.states[step], 0.93),
                Neighbour(other_frames[step], other.states[step], 0.58),
                Neighbour(other_frames[step - 1], other.states[step - 1], 0.52),
            ),
            share=0.41 if step == 2 else 0.97,
            true_frame=frames[step],
            true_state=episode.states[step] if step != 2 else f"not {other.states[2]}",
        )
        for step in range(len(frames))
    )
    return ExampleClip(
        clip=write_video(folder / f"clip-{seed}.mp4", episode.clip, fps=episode.fps),
        thought=write_video(folder / f"thought-{seed}.mp4", episode.thought, fps=episode.fps),
        question=episode.question,
        options=episode.options,
        answer=episode.answer,
        given={"storm": episode.answer, "direct": next(word for word in episode.options if word != episode.answer)},
        steps=steps,
    )


def with_naive_targets(story: DemoStory, raw: float, used: float, reached: float) -> DemoStory:
    """The same story of a run whose targets were not whitened, with the cosines of its targets."""
    recipe = dataclasses.replace(story.recipe, naive_targets=True)
    return dataclasses.replace(story, recipe=recipe, cosines=TargetCosines(raw, used, reached))
