"""A build as jobs of datatrove: tasks of this machine, or arrays of SLURM.

Tasks of one machine build together, as workers do. On SLURM each phase is an array of its own, begun when the one before has
ended, in which a task takes every n-th shard: tasks that never run at the same time cannot wait for one another. The shards
themselves say what is done, so datatrove's own marks of completion are not looked at.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storm_hf.builder.build import SHARDED_PHASES, Share, ThoughtsBuilder
from storm_hf.builder.finish import ThoughtsReport
from storm_hf.builder.recipe import ThoughtsRecipe
from storm_hf.errors import DatasetError
from storm_hf.optional import require


@dataclass(frozen=True)
class BuildJob:
    """A step of a datatrove pipeline that does the part of one task.

    Args:
        recipe ([`ThoughtsRecipe`]):
            Of the build.
        phase (`str`, *optional*):
            One of `ThoughtsBuilder.phases`, of which each task does its own shards. By default all, with the others' help.
    """

    recipe: ThoughtsRecipe
    phase: str | None = None

    def __call__(self, data: Iterable[Any] | None, rank: int = 0, world_size: int = 1) -> None:
        """Do one task. datatrove calls it with what the step before yields, which is nothing."""
        builder = ThoughtsBuilder(self.recipe, share=Share(rank, world_size, helps=self.phase is None))
        (builder.build if self.phase is None else builder.phases[self.phase])()


def build_with_datatrove(
    recipe: ThoughtsRecipe, tasks: int, *, workers: int = -1, start_method: str = "spawn"
) -> ThoughtsReport:
    """Build a data set with datatrove's tasks on this machine. The bytes are those that one process would write.

    Args:
        recipe ([`ThoughtsRecipe`]):
            Everything that determines the data set.
        tasks (`int`):
            Tasks that build together.
        workers (`int`, *optional*, defaults to `-1`):
            Tasks at once; -1 is all.
        start_method (`str`, *optional*, defaults to `"spawn"`):
            Start method of the processes.

    Returns:
        [`ThoughtsReport`]: What the data set holds.

    Raises:
        MissingExtraError: If datatrove is not installed.
        DatasetError: If the tasks ended without a data set; their logs lie in `work/logs`.
    """
    require("datatrove.executor.local").LocalPipelineExecutor(
        pipeline=[BuildJob(recipe)],
        tasks=tasks,
        workers=workers,
        logging_dir=str(_logs(recipe)),
        skip_completed=False,
        start_method=start_method,
    ).run()
    report = ThoughtsReport.load(Path(recipe.output_dir))
    if report is None:
        raise DatasetError(
            f"Expected a complete data set in {recipe.output_dir} but it has no manifest. See {_logs(recipe)}."
        )
    return report


def submit_to_slurm(recipe: ThoughtsRecipe, tasks: int, settings: Mapping[str, Any]) -> None:
    """Submit one job array per phase to SLURM, each waiting for the one before.

    Args:
        recipe ([`ThoughtsRecipe`]):
            Its `output_dir` lies on a file system that all nodes share.
        tasks (`int`):
            Tasks of each phase that has shards.
        settings (`Mapping[str, Any]`):
            Arguments of datatrove's [`SlurmPipelineExecutor`]: `time` and `partition` at least, and such as `gpus_per_task`,
            `venv_path` or `sbatch_args`.

    Raises:
        MissingExtraError: If datatrove is not installed.
    """
    executor = require("datatrove.executor.slurm").SlurmPipelineExecutor
    job = None
    for phase in ThoughtsBuilder(recipe).phases:
        job = executor(
            pipeline=[BuildJob(recipe, phase)],
            tasks=tasks if phase in SHARDED_PHASES else 1,
            job_name=f"storm-{phase}",
            logging_dir=str(_logs(recipe, phase)),
            depends=job,
            skip_completed=False,
            **settings,
        )
    if job is not None:
        job.run()  # submits those that it waits for first


def _logs(recipe: ThoughtsRecipe, phase: str = "") -> Path:
    return Path(recipe.output_dir).absolute() / "work" / "logs" / phase
