"""Checkpoints and final models that are complete or recognisably not, whenever a process is killed or a disk is full."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from trl import SFTTrainer

from storm_hf.atomic import flush_tree, move_files
from storm_hf.pipeline.lock import locked


_UNFINISHED = ".model.unfinished"
_LOCK = ".locks/model"


class WholeFiles(SFTTrainer):
    """Marks a checkpoint as complete after the files of every process, and replaces a saved model by whole files only."""

    def _save_rng_state(self, output_dir: str) -> None:
        """Save this process' generators, and wait for those of the others.

        The file that marks a checkpoint as complete comes next. Without the waiting, a run that was killed in between would
        resume with other draws on the processes whose file is missing.
        """
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            flush_tree(Path(output_dir))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model; files of an earlier one stay as they are until the new ones are whole.

        Args:
            output_dir (`str`, *optional*):
                The folder, by default that of the run.
        """
        if _internal_call:  # into a checkpoint, which is complete once its last file is there
            super().save_model(output_dir, _internal_call)
            return
        folder = Path(output_dir or self.args.output_dir)
        with self._alone_in(folder):
            super().save_model(str(folder / _UNFINISHED), _internal_call=True)
            self._wait_for_shards()
            if self.args.should_save:
                move_files(folder / _UNFINISHED, folder)
        if self.args.push_to_hub:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    @contextmanager
    def _alone_in(self, folder: Path) -> Iterator[None]:
        """Wait for another run of the same output folder that saves its model, and remove what a killed one left of it."""
        with locked(Path(self.args.output_dir, _LOCK), "model") if self.args.should_save else nullcontext():
            if self.args.should_save:
                shutil.rmtree(folder / _UNFINISHED, ignore_errors=True)
            self._wait_for_shards()
            yield

    def _wait_for_shards(self) -> None:
        """Wait for the processes that save together. A whole model is saved by the first one, which a script may call alone."""
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            self.accelerator.wait_for_everyone()
