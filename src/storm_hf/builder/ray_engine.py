"""A build as tasks of Ray Data: on this machine, or on the nodes of a Ray cluster that share a file system.

Each phase that has shards is one Ray data set whose rows are the tasks of the phase, begun when the one before has ended. A task
whose process or node is lost is run again by Ray, and goes on with the shards that are missing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from storm_hf.builder.build import SHARDED_PHASES, Share, ThoughtsBuilder
from storm_hf.builder.finish import ThoughtsReport
from storm_hf.builder.recipe import ThoughtsRecipe
from storm_hf.errors import StageError
from storm_hf.optional import require


@dataclass(frozen=True)
class RayTask:
    """The part of one phase that one task does: every n-th shard.

    Args:
        recipe ([`ThoughtsRecipe`]):
            Of the build.
        phase (`str`):
            One of `ThoughtsBuilder.phases`.
        num_tasks (`int`):
            All tasks of the phase.
    """

    recipe: ThoughtsRecipe
    phase: str
    num_tasks: int

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Do the task that a row names, and give the row back."""
        share = Share(int(row["item"]), self.num_tasks, helps=False)
        ThoughtsBuilder(self.recipe, share=share).phases[self.phase]()
        return row


def build_with_ray(recipe: ThoughtsRecipe, tasks: int, settings: Mapping[str, Any] | None = None) -> ThoughtsReport:
    """Build a data set with tasks of Ray Data. The bytes are those that one process would write.

    Args:
        recipe ([`ThoughtsRecipe`]):
            Its `output_dir` lies on a file system that all nodes share.
        tasks (`int`):
            Tasks of each phase that has shards.
        settings (`Mapping[str, Any]`, *optional*):
            Arguments of [`~ray.data.Dataset.map`] for each task, such as `num_gpus`, `num_cpus` or `memory`. The cluster is the
            one that Ray was connected to, or that `RAY_ADDRESS` names; else this machine.

    Returns:
        [`ThoughtsReport`]: What the data set holds.

    Raises:
        MissingExtraError: If Ray is not installed.
        StageError: If a task failed; what is complete stays.
    """
    data, exceptions = require("ray.data"), require("ray.exceptions")
    recipe = replace(recipe, output_dir=str(Path(recipe.output_dir).absolute()))  # tasks begin in other folders
    report: ThoughtsReport | None = None
    for phase, run_here in ThoughtsBuilder(recipe).phases.items():
        if phase not in SHARDED_PHASES:
            report = run_here()
            continue
        rows = data.from_items(list(range(tasks)), override_num_blocks=tasks)
        try:
            rows.map(RayTask(recipe, phase, tasks), **(settings or {})).materialize()
        except exceptions.RayError as error:
            raise StageError(
                f"A task of the phase {phase} failed: {error}. What is complete stays: the same command goes on."
            ) from error
    assert report is not None  # the last phase gives one
    return report
