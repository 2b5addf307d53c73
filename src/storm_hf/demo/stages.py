"""The main job, stage by stage. Each stage is done once: the same command continues where it stopped."""

import os
import platform
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from storm_hf.demo.folder import DemoFolder
from storm_hf.demo.recipe import DemoRecipe, demo_recipe
from storm_hf.demo.record import (
    ARMS,
    INTERVENTIONS,
    ArmResult,
    DemoReport,
    OpenQuestions,
    Retrieval,
    read_interventions,
)
from storm_hf.demo.report import write_report
from storm_hf.demo.tasks import Task, run_tasks
from storm_hf.demo.telling import tell
from storm_hf.worlds import make_world
from storm_hf.writing import read_json


ARM_TITLES = {
    "direct": "Direct answers",
    "chain_of_thought": "Chain of thought in text",
    "storm": "STORM: Stage I, then Stage II",
    "terse_chain": "Terse chain of thought",
}
_NUM_SHARED_STAGES = 3  # before the arms


def run_demo(
    out: str | os.PathLike[str] = "runs/demo",
    *,
    world: str = "shuffle",
    seed: int = 0,
    naive_targets: bool = False,
    recipe: DemoRecipe | None = None,
    console: Console | None = None,
) -> DemoReport:
    """Run all of STORM on real video files: render, see, align, answer, compare, explain.

    Args:
        out (`str` or `os.PathLike`, *optional*, defaults to `"runs/demo"`):
            The folder. A run that was stopped continues there.
        world (`str`, *optional*, defaults to `"shuffle"`):
            `"shuffle"`, `"bounce"`, `"order"` or `"lattice"`.
        seed (`int`, *optional*, defaults to `0`):
            Of data, weights and order.
        naive_targets (`bool`, *optional*, defaults to `False`):
            Whether to leave the targets as pooled, at unit size, to see the failure that whitening prevents.
        recipe ([`DemoRecipe`], *optional*):
            Instead of the three above: sizes and updates of one's own.
        console ([`~rich.console.Console`], *optional*):
            Console that shows the progress.

    Returns:
        [`DemoReport`]: The numbers, as in `report.json`. `report.html` lies beside it, the checkpoint in `storm/`.

    Raises:
        DemoError: If a stage fails, or another demo runs in the folder.
        StaleWorkError: If the folder was begun with another recipe.
        KeyboardInterrupt: If Ctrl-C was pressed; what was done is kept.
    """
    recipe = recipe or demo_recipe(world, seed, naive_targets)
    folder = DemoFolder(Path(out).resolve())
    console = console or Console(stderr=True)
    with folder.claimed(recipe):
        for stage, tasks in _stages(folder, recipe).items():
            folder.once(stage, partial(run_tasks, tasks, folder.logs, workers=2, console=console))
        report = make_report(folder, recipe, Path(out))
        write_report(folder.path, report, tell(folder, recipe, command(recipe, out), machine(), versions()))
    return report


def prepare(folder: DemoFolder, recipe: DemoRecipe, console: Console | None = None) -> None:
    """Do what all arms start from, unless it was done before: render, learn to see, encode.

    Raises:
        DemoError: If a stage fails, or another demo runs in the folder.
        StaleWorkError: If the folder was begun with another recipe.
    """
    with folder.claimed(recipe):
        for stage, tasks in list(_stages(folder, recipe).items())[:_NUM_SHARED_STAGES]:
            folder.once(stage, partial(run_tasks, tasks, folder.logs, workers=2, console=console))


def _stages(folder: DemoFolder, recipe: DemoRecipe) -> dict[str, list[Task]]:
    """Stages of the demo, in order. Tasks of one stage run in parallel."""
    from storm_hf.demo import arms, data, reload

    episodes = data.world_recipe(recipe).num_episodes
    updates = {name: training.num_updates for name, training in recipe.trainings.items()}
    updates["storm"] = updates["align"] + updates["answer"]
    asked = episodes + sum(recipe.test_depths.values())  # the test clips in both forms
    works: dict[str, tuple[Callable[..., None], tuple[Any, ...]]]
    works = {name: (arms.run_text_arm, (folder, recipe, name)) for name in ARM_TITLES}
    works["storm"] = (arms.run_storm, (folder, recipe))
    return {
        "1_render": [Task("render", "Drawing clips and thought videos", episodes, data.render, (folder, recipe, 2))],
        "2_base": [Task("base", "Learning to see", updates["base"], arms.train_base, (folder, recipe))],
        "3_encode": [
            Task("thoughts", "Encoding thought videos", episodes, data.encode_thoughts, (folder, recipe)),
            Task("clips", "Encoding question clips", asked, data.encode_clips, (folder, recipe)),
        ],
        "4_arms": [Task(name, ARM_TITLES[name], updates[name], *work) for name, work in works.items()],
        "5_reload": [
            Task("reload", "Loading without storm_hf", reload.NUM_CLIPS, reload.check_reload, (folder, recipe))
        ],
    }


def make_report(folder: DemoFolder, recipe: DemoRecipe, out: Path) -> DemoReport:
    """Put together what the arms wrote."""
    arms = {name: read_json(folder.arm(name) / "results.json") for name in ARMS}
    storm = arms["storm"]
    usage = folder.usage()
    return DemoReport(
        world=recipe.world,
        seed=recipe.seed,
        chance=make_world(recipe.world, **recipe.knobs).chance,
        num_test=sum(recipe.test_depths[depth] for depth in recipe.deep),
        num_latents=recipe.num_latents,
        arms={name: ArmResult.of(results) for name, results in arms.items()},
        interventions=_shown(storm["interventions"]),
        by_depth={
            depth: {"direct": arms["direct"]["by_depth"][depth], "storm": storm["by_depth"][depth]}
            for depth in storm["by_depth"]
        },
        retrieval=Retrieval(storm["top1_state"], recipe.num_gallery, storm["retrieval_chance"]),
        open=OpenQuestions(
            arms={name: results["open"]["accuracy"] for name, results in arms.items()},
            interventions=_shown(storm["open"]["interventions"]),
        ),
        wall_seconds=usage.wall_seconds,
        cpu_seconds=usage.cpu_seconds,
        peak_rss_mib=usage.peak_rss_mib,
        checkpoint=str(out / folder.storm.name),
    )


def _shown(measured: Mapping[str, float]) -> dict[str, float]:
    known = read_interventions(measured)
    return {name: known[name] for name in INTERVENTIONS}


def command(recipe: DemoRecipe, out: str | os.PathLike[str]) -> str:
    """The command that makes this run again."""
    words = ["storm demo", f"--out {out}", f"--world {recipe.world}", f"--seed {recipe.seed}"]
    return " ".join([*words, "--naive-targets"] if recipe.naive_targets else words)


def machine() -> str:
    """Description of the machine, such as "2 CPU cores"."""
    return f"{os.cpu_count()} CPU cores"


def versions() -> dict[str, str]:
    """Versions of what matters."""
    names = ("storm-hf", "torch", "transformers", "trl", "datasets")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
