"""Collect the contents of the demo's page beyond its numbers.

Axes: K latent steps.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from storm_hf.demo.folder import DemoFolder
from storm_hf.demo.recipe import DemoRecipe
from storm_hf.demo.record import ArmResult
from storm_hf.demo.story import ArmTraining, DemoStory, ExampleClip, ImaginedStep, Neighbour, TargetCosines
from storm_hf.diagnostics import ThoughtGallery
from storm_hf.target_trajectory import load_thoughts
from storm_hf.video import read_video
from storm_hf.writing import read_json


ARMS = ("direct", "chain_of_thought", "terse_chain", "align", "storm")
NUM_EXAMPLES = 3
FRAMES_PER_STEP = 2


def tell(folder: DemoFolder, recipe: DemoRecipe, command: str, machine: str, versions: Mapping[str, str]) -> DemoStory:
    """Put the story together from what the workers wrote.

    Args:
        folder ([`DemoFolder`]):
            Of a finished run.
        recipe ([`DemoRecipe`]):
            Of that run.
        command (`str`):
            Command that reproduces the page.
        machine (`str`):
            Machine of the run.
        versions (`Mapping[str, str]`):
            From package to version.
    """
    arms = {name: read_json(folder.arm(name) / "results.json") for name in ARMS}
    storm = arms["storm"]
    return DemoStory(
        task=recipe.task,
        deep_clips=recipe.deep_clips,
        depth_unit=recipe.depth_unit,
        num_train=recipe.num_train,
        num_per_depth=recipe.num_per_depth,
        training={name: ArmTraining(arm["num_updates"], arm["num_parameters"]) for name, arm in arms.items()},
        examples=_examples(folder, recipe, arms),
        cosines=TargetCosines(raw=storm["cosine_raw"], used=storm["cosine_used"], reached=storm["cosine_reached"]),
        machine=machine,
        backbone="a randomly initialised Qwen2.5-VL",
        command=command,
        versions=versions,
        naive_targets=recipe.naive_targets,
        frames_per_step=FRAMES_PER_STEP,
        extra_arms={"terse_chain": ArmResult.of(arms["terse_chain"])},
        extra_by_depth={"chain_of_thought": arms["chain_of_thought"]["by_depth"]},
    )


def _examples(folder: DemoFolder, recipe: DemoRecipe, arms: Mapping[str, Any]) -> tuple[ExampleClip, ...]:
    """The first deep test clips of different answers, with what each latent resembles."""
    tests = load_thoughts(folder.data)["test"]
    gallery = ThoughtGallery.open(folder.storm)
    with np.load(folder.path / "latents.npz") as stored:
        latents = dict(zip(stored["indices"].tolist(), stored["latents"], strict=True))  # position -> (K, D)
    chosen: dict[str, int] = {}
    for index in sorted(latents, key=lambda index: -int(tests[index]["depth"])):
        chosen.setdefault(tests[index]["answer"], index)
        if len(chosen) == NUM_EXAMPLES:
            break
    return tuple(_example(tests[index], index, latents[index], gallery, arms) for index in chosen.values())


def _example(
    row: Mapping[str, Any], index: int, latents: np.ndarray, gallery: ThoughtGallery, arms: Mapping[str, Any]
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
            true_frame=thought[FRAMES_PER_STEP * step + FRAMES_PER_STEP - 1],
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
        given={name: arms[name]["choices"][index] or "nothing readable" for name in ("storm", "direct")},
        steps=steps,
    )
