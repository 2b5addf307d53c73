"""From a recipe to a data set of thoughts, by any number of processes at once.

    folder/  data/train-00000-of-00002.parquet …  videos/{worlds,films,clips,thoughts}/…  rejected.jsonl
             whitening.safetensors  fingerprint.json  manifest.json
             work/  10_annotations/  20_prompts/  30_thought_videos/  35_selection/      one file of records per shard

A shard exists if and only if it is complete, and the manifest is written last. Every process runs the same phases in the
same order: what another one is writing it leaves to it, what another one left unfinished it takes over, and it goes on to
the next phase when all shards of this one are there.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from storm_hf.builder.components import (
    FrozenScorer,
    ScorerOf,
    check_components,
    clip_writer_of,
    example_of,
    gates_of,
    generator_of,
    load_encoder,
    prompts_of,
)
from storm_hf.builder.filtering import rows_of, select
from storm_hf.builder.finish import ThoughtsReport, finish
from storm_hf.builder.progress import ANNOTATIONS, PROMPTS, THOUGHTS, Plan, Selection, record_path, split_of
from storm_hf.builder.recipe import ThoughtsRecipe
from storm_hf.builder.retry import machine_faults_named, patient, reopen_timed_out
from storm_hf.builder.row_steps import DUPLICATE, PromptStep, Record, Row, ThoughtStep, read_records, write_records
from storm_hf.builder.sharding import plan_parameters, write_plan
from storm_hf.builder.sources import check_sources, warn_of_replaced_clips
from storm_hf.errors import DatasetError
from storm_hf.pipeline import Step, Workspace, claim
from storm_hf.target_trajectory.encode import ShardEncoder
from storm_hf.target_trajectory.schema import DATA
from storm_hf.thought_video import PromptWriter, ThoughtVideoGenerator
from storm_hf.video import bounded_reading
from storm_hf.video.library_backends import check_video_backend, other_backend, video_backend


_OnFinished = Callable[[Path], None]
SHARDED_PHASES = ("prompts", "thought_videos", "features")  # those that many tasks share; one does each of the others


@dataclass(frozen=True)
class Share:
    """Share of the shards that a process takes.

    Args:
        rank (`int`, *optional*, defaults to `0`):
            Its number among all processes, from 0.
        size (`int`, *optional*, defaults to `1`):
            Number of processes.
        helps (`bool`, *optional*, defaults to `True`):
            Whether it goes on with the shards of the others once its own are done. Engines that wait for all processes
            between phases say no.
    """

    rank: int = 0
    size: int = 1
    helps: bool = True

    def of(self, tasks: Mapping[str, Any]) -> dict[str, Any]:
        """Its own tasks, and after them those of the others if it helps."""
        names = list(tasks)
        own = dict.fromkeys(names[self.rank :: self.size])
        others = [name for name in names if name not in own] if self.helps else []
        return {name: tasks[name] for name in (*own, *others)}


@dataclass(frozen=True)
class ThoughtsBuilder:
    """Builds a data set of thoughts; the same command goes on with what was stopped.

    Args:
        recipe ([`ThoughtsRecipe`]):
            Everything that determines the data set.
        generator ([`ThoughtVideoGenerator`], *optional*):
            Makes thought videos instead of the recipe's. The recipe's `generator` is recorded as its parameters.
        scorer_of (`Callable[[ScorerSettings], AnswerScorer]`, *optional*):
            Makes the frozen model that gates ask. By default a [`FrozenScorer`] of the recipe's model.
        share ([`Share`], *optional*):
            Shards that this process takes. By default all.
        on_finished (`Callable[[Path], None]`, *optional*):
            Called once per shard when it is complete.

    Example:
        ```python
        report = ThoughtsBuilder(ThoughtsRecipe.read("datasets_builders/recipes/shuffle_tiny.yaml")).build()
        ```
    """

    recipe: ThoughtsRecipe
    generator: ThoughtVideoGenerator | None = None
    scorer_of: ScorerOf = FrozenScorer
    share: Share = field(default_factory=Share)
    on_finished: _OnFinished | None = None

    @cached_property
    def workspace(self) -> Workspace:
        """The folder of the data set."""
        return Workspace(Path(self.recipe.output_dir).absolute())

    @cached_property
    def encoder(self) -> ShardEncoder:
        """The frozen vision tower."""
        return load_encoder(self.recipe, self.workspace.root)

    @property
    def phases(self) -> dict[str, Callable[[], Any]]:
        """Phases of a build, in order. A phase starts when all shards of the previous one exist."""
        phases = {
            "annotations": self.read_annotations,
            "prompts": self.write_prompts,
            "thought_videos": self.make_thought_videos,
            "selection": self.select_rows,
            "features": self.encode_features,
            "targets": self.finish,
        }
        return {name: machine_faults_named(self.workspace.root)(phase) for name, phase in phases.items()}

    def build(self) -> ThoughtsReport:
        """Run all phases.

        Returns:
            [`ThoughtsReport`]: What the data set holds.

        Raises:
            StaleWorkError: If the folder was begun with other parameters; the message names what differs.
            DatasetError: If a source cannot be read, or nothing of the training split is left.
            CheckpointError: If there is no such encoder.
            ConfigurationError: If a setting of the recipe does not exist.
            BackboneError: If the backbone cannot encode videos.
            MachineError: If the machine fails for more than some seconds, such as a mount that is away or a full disk. What is
                complete stays, no row is rejected for it, and the same call goes on.
        """
        *before, last = self.phases.values()
        for phase in before:
            phase()
        return last()

    def read_annotations(self) -> None:
        """Cut the annotations into shards, and take up rows again that had less time than they would have now."""
        check_video_backend(self._video_backend)
        check_components(self.recipe, self.generator)
        parameters = plan_parameters(self.recipe)
        check_sources(self.recipe, self.workspace, ANNOTATIONS, parameters)
        claim(self.workspace.root, ANNOTATIONS, parameters)
        write_plan(self.recipe, self.workspace)
        if self.share.rank == 0:
            warn_of_replaced_clips(self.workspace, self._plan.num_rows)
        reopen_timed_out(self.workspace, self._plan, self.recipe.reading.timeout_seconds)

    def write_prompts(self) -> None:
        """Write the prompt of each row."""
        writer = prompts_of(self.recipe, self.workspace.root / "work" / "chat")
        steps = {split: PromptStep(writer, clip_writer_of(self.recipe, split)) for split in self.recipe.splits}
        step = Step(PROMPTS, self._records_writer(ANNOTATIONS, steps), _prompt_parameters(self.recipe, writer))
        self._run(step, self._record_tasks())

    def make_thought_videos(self) -> None:
        """Make and judge the thought video of each row."""
        generators = {split: self.generator or generator_of(self.recipe, split) for split in self.recipe.splits}
        scorer_of = cache(self.scorer_of)  # gates and splits share one model, which goes when this phase ends
        steps = {split: self._thought_step(generator, scorer_of) for split, generator in generators.items()}
        write_row = self._records_writer(PROMPTS, steps)

        def write(shard: str, path: Path) -> None:
            for folder in steps[split_of(shard)].folders(shard):
                shutil.rmtree(folder, ignore_errors=True)  # what a killed process left of it
            write_row(shard, path)

        step = Step(THOUGHTS, write, _thought_parameters(self.recipe, generators["train"]))
        self._run(step, self._record_tasks())

    def select_rows(self) -> None:
        """Find duplicates, and decide which rows become data."""
        select(self.recipe, self._plan, self.workspace)

    def encode_features(self) -> None:
        """Encode the thought videos, into the Parquet shards that `load_dataset` opens."""
        selection, folder = self._selection, self.workspace.root

        def write(shard: str, path: Path) -> None:
            rows = rows_of(selection, shard, self.workspace)
            self.encoder.write([example_of(row, folder) for row in rows], path)

        parameters = self.encoder.parameters | {"dtype": self.recipe.encoder.dtype}
        self._run(Step(DATA, write, parameters), {name: name for name in selection.shards})

    def finish(self) -> ThoughtsReport:
        """Learn the targets on the training split and write the manifest."""
        return finish(self.recipe, self._plan, self._selection, self.workspace, self.encoder.revision)

    @property
    def _video_backend(self) -> str:
        setting = self.recipe.reading.video_backend
        return video_backend() if setting == "auto" else setting

    @property
    def _plan(self) -> Plan:
        plan = Plan.load(self.workspace)
        if plan is None:
            raise DatasetError(
                f"Expected annotations in {self.workspace.root} but they have not been read. Begin there."
            )
        return plan

    @property
    def _selection(self) -> Selection:
        selection = Selection.load(self.workspace)
        if selection is None:
            raise DatasetError(
                f"Expected a selection in {self.workspace.root} but there is none. Make all videos first."
            )
        return selection

    def _thought_step(self, generator: ThoughtVideoGenerator, scorer_of: ScorerOf) -> ThoughtStep:
        return ThoughtStep(
            self.workspace.root,
            generator,
            gates_of(self.recipe, generator, scorer_of),
            self.recipe.frame_size,
            copies=self.recipe.embed == "copy",
            is_hashed=DUPLICATE in self.recipe.gates,
        )

    def _record_tasks(self) -> dict[str, str]:
        return {f"{shard}.jsonl": shard for shard in self._plan.num_rows}

    def _records_writer(
        self, before: str, step_of: Mapping[str, Callable[[Row, str], Record]]
    ) -> Callable[[str, Path], None]:
        """Make the function that writes a shard of records from that of the previous step, leaving out rows that ended there."""
        workspace = self.workspace

        def write(shard: str, path: Path) -> None:
            records = read_records(record_path(workspace, before, shard), workspace.root)
            step = patient(step_of[split_of(shard)])
            write_records(path, (step(row, shard) for row in records if isinstance(row, Row)), workspace.root)

        return write

    def _run(self, step: Step[str], tasks: Mapping[str, str]) -> None:
        reading = self.recipe.reading
        with bounded_reading(reading.limits, reading.timeout_seconds, backend=self._video_backend, expects_files=True):
            step.run(self.workspace, self.share.of(tasks), self.on_finished)


def _prompt_parameters(recipe: ThoughtsRecipe, writer: PromptWriter) -> dict[str, Any]:
    return {"prompts": dict(recipe.prompts), "writer": writer.name, "shows_answer": writer.shows_answer}


def _thought_parameters(recipe: ThoughtsRecipe, generator: ThoughtVideoGenerator) -> dict[str, Any]:
    return {
        "generator": dict(recipe.generator),
        "name": generator.name,
        "revision": generator.revision,
        "gates": {name: dict(settings or {}) for name, settings in recipe.gates.items()},
        "limits": asdict(recipe.reading.limits),
        "frame_size": recipe.frame_size,
        "embed": recipe.embed,
        "keep_thoughts": recipe.keep_thoughts,
        **other_backend(recipe.reading.video_backend),
    }
