"""Stages of the demo. Each is done once: the same command continues where it stopped."""

import os
import platform
from functools import partial
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from storm_hf.demo import data
from storm_hf.demo.folder import DemoFolder
from storm_hf.demo.measure import NUM_RELOADED, check_reload
from storm_hf.demo.recipe import BackboneName, DemoRecipe, demo_recipe
from storm_hf.demo.report import write_report
from storm_hf.demo.report_data import DemoReport, read_report, read_story
from storm_hf.demo.tasks import Task, run_tasks
from storm_hf.demo.training import evaluation_tasks, make_backbone, train_base, training_task
from storm_hf.demo.variants import demo_variants


_WORKERS = 2
_NUM_SHARED_STAGES = 3  # before the variants


def run_demo(
    out: str | os.PathLike[str] = "runs/demo",
    *,
    world: str = "shuffle",
    seed: int = 0,
    naive_targets: bool = False,
    backbone: BackboneName = "tiny",
    recipe: DemoRecipe | None = None,
    console: Console | None = None,
) -> DemoReport:
    """Run all of STORM on real video files: render, see, align, answer, compare, explain.

    Args:
        out (`str` or `os.PathLike`, *optional*, defaults to `"runs/demo"`):
            The folder. A run that was stopped continues there.
        world (`str`, *optional*, defaults to `"shuffle"`):
            One of [`~storm_hf.worlds.WORLD_NAMES`].
        seed (`int`, *optional*, defaults to `0`):
            Of data, weights and order.
        naive_targets (`bool`, *optional*, defaults to `False`):
            Whether to leave the targets as pooled, at unit size, to see the failure that whitening prevents.
        backbone (`str`, *optional*, defaults to `"tiny"`):
            `"tiny"`, a random model, or `"smollm2"`, a pretrained language model; see [`storm_hf.demo.backbone`].
        recipe ([`DemoRecipe`], *optional*):
            Instead of the four above: sizes and updates of one's own.
        console ([`~rich.console.Console`], *optional*):
            Console that shows the progress.

    Returns:
        [`DemoReport`]: The numbers, as in `report.json`. `report.html` lies beside it, the checkpoint in `storm/`.

    Raises:
        StageError: If a stage fails, or another demo runs in the folder.
        StaleWorkError: If the folder was begun with another recipe.
        KeyboardInterrupt: If Ctrl-C was pressed; what was done is kept.
    """
    recipe = recipe or demo_recipe(world, seed, naive_targets, backbone)
    folder = DemoFolder(Path(out).resolve())
    console = console or Console(stderr=True)
    with folder.claimed(recipe):
        for stage, tasks in _stages(folder, recipe).items():
            folder.once(stage, partial(run_tasks, tasks, folder.logs, workers=_WORKERS, console=console))
        report = read_report(folder, recipe, Path(out))
        write_report(folder.path, report, read_story(folder, recipe, _command(recipe, out), _machine(), _versions()))
    return report


def prepare(folder: DemoFolder, recipe: DemoRecipe, console: Console | None = None) -> None:
    """Do what all variants start from, unless it was done before: render, learn to see, encode.

    Raises:
        StageError: If a stage fails, or another demo runs in the folder.
        StaleWorkError: If the folder was begun with another recipe.
    """
    with folder.claimed(recipe):
        for stage, tasks in list(_stages(folder, recipe).items())[:_NUM_SHARED_STAGES]:
            folder.once(stage, partial(run_tasks, tasks, folder.logs, workers=_WORKERS, console=console))


def _stages(folder: DemoFolder, recipe: DemoRecipe) -> dict[str, list[Task]]:
    """Stages of the demo, in order. Tasks of one stage run in parallel."""
    episodes = data.world_recipe(recipe).num_episodes
    variants = demo_variants(recipe)
    base, run = variants["base"], (folder, recipe)
    trained = [variants[name] for name in recipe.variants]
    base_threads = 1 if recipe.backbone == "tiny" else _WORKERS  # small matrices are faster on one
    backbone = (
        []
        if recipe.backbone == "tiny"
        else [Task("backbone", "Converting and recording SmolLM2", 2, make_backbone, run)]
    )
    asked = episodes + sum(recipe.test_depths.values())  # the test clips in both forms
    return {
        "1_render": [
            *backbone,
            Task("render", "Drawing clips and thought videos", episodes, data.render, (*run, _WORKERS)),
        ],
        "2_base": [Task(base.name, base.title, base.num_updates, train_base, run, base_threads)],
        "3_encode": [
            Task("thoughts", "Encoding thought videos", episodes, data.encode_thoughts, run),
            Task("clips", "Encoding question clips", asked, data.encode_clips, run),
        ],
        "4_train": [training_task(folder, recipe, one) for one in trained],
        "5_evaluate": evaluation_tasks(folder, recipe, trained),
        "6_reload": [Task("reload", "Loading without storm_hf", NUM_RELOADED, check_reload, run)],
    }


def _command(recipe: DemoRecipe, out: str | os.PathLike[str]) -> str:
    """Write the command that makes this run again."""
    words = ["storm demo", f"--out {out}", f"--world {recipe.world}", f"--seed {recipe.seed}"]
    words += [] if recipe.backbone == "tiny" else [f"--backbone {recipe.backbone}"]
    return " ".join([*words, "--naive-targets"] if recipe.naive_targets else words)


def _machine() -> str:
    """Describe the machine, such as "2 CPU cores"."""
    return f"{os.cpu_count()} CPU cores"


def _versions() -> dict[str, str]:
    """Look up the versions of the packages that determine the figures."""
    names = ("storm-hf", "torch", "transformers", "trl", "datasets")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
