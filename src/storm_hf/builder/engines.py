"""Engines of a build: worker processes of this machine, jobs of datatrove, tasks of Ray Data.

datatrove: tasks of one machine build together, as workers do. On SLURM each phase is an array of its own, begun when the one before has
ended, in which a task takes every n-th shard: tasks that never run at the same time cannot wait for one another. The shards
themselves say what is done, so datatrove's own marks of completion are not looked at.

Ray: each phase that has shards is one Ray data set whose rows are the tasks of the phase, begun when the one before has ended. A task
whose process or node is lost is run again by Ray, and goes on with the shards that are missing.
"""

from collections.abc import Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from transformers.utils.logging import disable_progress_bar

from storm_hf.builder.build import SHARDED_PHASES, Share, ThoughtsBuilder
from storm_hf.builder.finish import ThoughtsReport
from storm_hf.builder.recipe import ThoughtsRecipe
from storm_hf.errors import DatasetError, StageError
from storm_hf.optional import require
from storm_hf.processes import end_with_parent


def build_with_workers(recipe: ThoughtsRecipe, workers: int) -> ThoughtsReport:
    """Build a data set with several processes. The bytes are those that one process would write.

    Args:
        recipe ([`ThoughtsRecipe`]):
            Everything that determines the data set.
        workers (`int`):
            Processes. Each loads the models that it needs.

    Returns:
        [`ThoughtsReport`]: What the data set holds.

    Raises:
        StageError: If a process was killed. What is complete stays: the same call goes on.
        StormError: What a process raised.
    """
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
        running = [pool.submit(_work, recipe, Share(rank, workers)) for rank in range(workers)]
        done, _ = wait(running, return_when=FIRST_EXCEPTION)
        try:
            reports = [part.result() for part in done]
        except BrokenProcessPool as error:
            raise StageError(
                "A worker was killed (out of memory?). Finished shards are kept; rerun the same command to resume."
            ) from error
    return reports[0]


def _work(recipe: ThoughtsRecipe, share: Share) -> ThoughtsReport:
    disable_progress_bar()  # one for each worker
    return ThoughtsBuilder(recipe, share=share).build()


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
        DependencyError: If datatrove is not installed.
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
        DependencyError: If datatrove is not installed.
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
        DependencyError: If Ray is not installed.
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
