"""A run: its stages one after the other, each resumable, none repeated, none mixed with what other arguments made.

runs/tiny/run/  1-align/ 2-answer/   with in each of them

arguments.yaml     what the script was started with
fingerprint.json   the same without places, and those of the stages before it: with others, the folder is refused
rows/              the data set, where written reasoning was replaced
checkpoint-N/ …    what the script writes
log.txt            what it printed
finished.json      written last: the stage is done
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from storm_hf.atomic import write_json, written_atomically
from storm_hf.curriculum.launch import Ending
from storm_hf.curriculum.reasoning import write_rows
from storm_hf.curriculum.recipe import RunRecipe, StageRun
from storm_hf.errors import ConfigurationError, StageError
from storm_hf.pipeline.workspace import FILE_NAME, claim
from storm_hf.training.resume import newest_complete_checkpoint


_MARKER = "finished.json"
_Launch = Callable[[str, Path, Path], Ending]


@dataclass(frozen=True)
class StagedRun:
    """Runner of a recipe, which resumes where it was stopped.

    Args:
        recipe ([`RunRecipe`]):
            The stages.
        launch (`Callable[[str, Path, Path], Ending]`):
            Runs the script of a stage, given its kind, its arguments and its log; an [`AccelerateLauncher`].
        tell (`Callable[[str], None]`, *optional*):
            Hears what is being done, a sentence at a time.
        patience_seconds (`float`, *optional*, defaults to `60.0`):
            Time to wait for the last checkpoint to appear: another machine may have written it.
    """

    recipe: RunRecipe
    launch: _Launch
    tell: Callable[[str], None] = lambda sentence: None
    patience_seconds: float = 60.0

    def run(self) -> Path:
        """Run the stages that are not finished.

        Returns:
            `Path`: The folder of the last stage, with the final checkpoint.

        Raises:
            StaleWorkError: If a stage was begun with other arguments; nothing has been run then.
            StageError: If a stage fails; the message names its log.
            KeyboardInterrupt: If Ctrl-C was pressed, after the stage has stopped.
        """
        for number, stage in enumerate(self.recipe.stages):
            if (self.folder_of(stage) / FILE_NAME).exists():
                self._claim(number)
        for number, stage in enumerate(self.recipe.stages):
            if (self.folder_of(stage) / _MARKER).exists():
                self.tell(f"{stage.name} is finished.")
            else:
                self._claim(number)
                self._run_stage(number)
        return self.folder_of(self.recipe.stages[-1])

    def folder_of(self, stage: StageRun) -> Path:
        """Folder of a stage, whether it has begun or not."""
        return self.recipe.output_dir / stage.name

    def prepare(self, number: int) -> Path:
        """Write the rows and the arguments of a stage.

        Args:
            number (`int`):
                Position of the stage, counted from 0.

        Returns:
            `Path`: The YAML file that its script takes as `--config`.
        """
        stage = self.recipe.stages[number]
        folder = self.folder_of(stage)
        before = self.recipe.stages[number - 1] if number else None
        arguments: dict[str, Any] = {
            **self._noise_of(stage),
            **stage.arguments,
            "model_name_or_path": str(self.folder_of(before)) if before else self.recipe.model_name_or_path,
            "output_dir": str(folder),
            "resume_from_checkpoint": "true",
        }
        if stage.stage.num_replaced is not None:
            arguments["dataset_name"] = str(self._write_rows(stage))
            arguments.pop("dataset_config", None)
        path = folder / "arguments.yaml"
        with written_atomically(path) as unfinished:
            unfinished.write_text(yaml.safe_dump(arguments), encoding="utf-8")
        return path

    def _noise_of(self, stage: StageRun) -> dict[str, str]:
        """Name the Stage I in whose directions reinforcement draws its noise, as far as its estimator chooses directions."""
        if stage.stage.kind != "grpo" or stage.stage_one is None or stage.arguments.get("estimator") == "score":
            return {}
        return {"latent_subspace": str(self.recipe.output_dir / stage.stage_one)}

    def _run_stage(self, number: int) -> None:
        stage, total = self.recipe.stages[number], len(self.recipe.stages)
        log = self.folder_of(stage) / "log.txt"
        self.tell(f"{stage.name}, stage {number + 1} of {total}, writes to {log.parent}.")
        started = time.perf_counter()
        ending = self.launch(stage.stage.kind, self.prepare(number), log)
        step, last_step = self._wait_for_last_step(stage) if ending.exit_code == 0 else (0, 1)
        if step >= last_step:
            seconds = round(time.perf_counter() - started, 3)
            write_json(self.folder_of(stage) / _MARKER, {"global_step": step, "seconds_of_last_run": seconds})
        if ending.is_interrupted:
            raise KeyboardInterrupt
        if ending.exit_code != 0:
            raise StageError(f"{stage.name} failed with exit code {ending.exit_code}; see {log}.", ending.exit_code)
        if step < last_step:
            raise StageError(
                f"{stage.name} stopped after step {step} of {last_step}; run the same command to go on, or see {log}."
            )

    def _wait_for_last_step(self, stage: StageRun) -> tuple[int, int]:
        """Steps done and steps to do, by the newest complete checkpoint."""
        until = time.monotonic() + self.patience_seconds
        while True:
            step, last_step = self._steps_of(stage)
            if step >= last_step or time.monotonic() >= until:
                return step, last_step
            time.sleep(min(1.0, self.patience_seconds))

    def _steps_of(self, stage: StageRun) -> tuple[int, int]:
        checkpoint = newest_complete_checkpoint(self.folder_of(stage))
        if checkpoint is None:
            return 0, 1
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        return state["global_step"], state["max_steps"]

    def _claim(self, number: int) -> None:
        """Say what a stage is made with, or make sure that it is the same as before."""
        stage = self.recipe.stages[number]
        claim(self.folder_of(stage), stage.name, self._parameters_of(number))

    def _parameters_of(self, number: int) -> dict[str, Any]:
        """Parameters that determine the result of a stage: its own arguments, and those of the checkpoint that it starts from."""
        stage = self.recipe.stages[number]
        parameters: dict[str, Any] = dict(stage.arguments)
        if stage.stage.num_replaced is not None:
            parameters["replaced"] = {"column": self.recipe.reasoning_column, "steps": stage.stage.num_replaced}
        before = self._parameters_of(number - 1) if number else self.recipe.model_name_or_path
        return {**parameters, "starts_from": before}

    def _write_rows(self, stage: StageRun) -> Path:
        source = stage.arguments.get("dataset_name")
        if source is None:
            raise ConfigurationError(f"{stage.name} needs `dataset_name`, a data set with a written chain of thought.")
        replaced = stage.stage.num_replaced or 0
        config, column = stage.arguments.get("dataset_config"), self.recipe.reasoning_column
        return write_rows(source, config, self.folder_of(stage) / "rows", column, replaced)
