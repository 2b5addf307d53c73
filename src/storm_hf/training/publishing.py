"""Card that a trainer writes beside the weights, and its pushes to the Hub."""

import logging
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from huggingface_hub import CommitInfo, HfApi
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import HubStrategy, SaveStrategy
from transformers.utils.hub import hf_api
from trl import SFTTrainer

from storm_hf.errors import StormError
from storm_hf.hub.card_metadata import is_hub_name
from storm_hf.hub.checkpoint_push import CheckpointPush
from storm_hf.hub.known_files import select_model_files, sentence_on_left_out
from storm_hf.hub.model_card import Stage, facts_of_model, write_card
from storm_hf.pipeline.paths import origin_of


_STAGED = ".push-"  # a hidden folder, which no push publishes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Destination:
    """Repository and commit of a push.

    Args:
        repo (`str`):
            The repository, with its owner. It keeps the visibility that it has.
        message (`str`):
            Title of the commit.
        token (`str`, *optional*):
            Token that may write. By default the one that is logged in.
        revision (`str`, *optional*, defaults to `"main"`):
            Branch.
    """

    repo: str
    message: str
    token: str | None = None
    revision: str = "main"

    def push_of(self, folder: Path) -> CheckpointPush:
        """Make the push of a folder."""
        shared = hf_api()
        api = HfApi(shared.endpoint, token=self.token or shared.token) if self.token else shared
        return CheckpointPush(folder, self.repo, public=None, revision=self.revision, message=self.message, api=api)


class TrainerPushes:
    """Pushes of one run, one after the other, in a thread.

    Args:
        output_dir (`Path`):
            Folder of the run.
    """

    def __init__(self, output_dir: Path) -> None:
        self._output_dir = output_dir
        self._running: list[Future[CommitInfo]] = []
        self._named: set[str] = set()

    @property
    def is_done(self) -> bool:
        """True if no push is under way."""
        return all(push.done() for push in self._running)

    def wait(self) -> None:
        """Wait for the pushes under way."""
        wait(self._running)

    def begin(self, checkpoint: Path, destination: Destination) -> None:
        """Push a checkpoint in the background. What goes wrong is logged.

        Its files are linked first, since the trainer may delete the checkpoint before they are sent.

        Args:
            checkpoint (`Path`):
                A checkpoint that was written to its end.
            destination ([`Destination`]):
                Repository and revision of the push.
        """
        if self.is_done:
            self._running = []
            for leftover in self._output_dir.glob(f"{_STAGED}*"):  # of a run that was killed
                shutil.rmtree(leftover, ignore_errors=True)
        try:
            staged = self._staged(checkpoint)
        except (StormError, OSError) as error:
            _log_failure(destination, error)
            return
        self._running.append(hf_api().run_as_future(_push_staged, staged, destination))

    def push(self, folder: Path, destination: Destination, *, blocking: bool) -> CommitInfo | Future[CommitInfo]:
        """Push a folder that nothing writes to any more.

        Args:
            folder (`Path`):
                A saved model.
            destination ([`Destination`]):
                Repository and revision of the push.
            blocking (`bool`):
                Whether to wait until it is done.
        """
        self._name_left_out(select_model_files(folder.resolve()).left_out)
        if blocking:
            return _push(folder, destination)
        self._running.append(hf_api().run_as_future(_push, folder, destination))
        return self._running[-1]

    def _staged(self, checkpoint: Path) -> Path:
        """Link what will be published into a hidden folder of the run."""
        selection = select_model_files(checkpoint.resolve())
        self._name_left_out(selection.left_out)
        folder = self._output_dir / f"{_STAGED}{checkpoint.name}"
        shutil.rmtree(folder, ignore_errors=True)
        for name, file in selection.published.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            _link(file, folder / name)
        return folder

    def _name_left_out(self, names: Sequence[str]) -> None:
        """Log the files that are not published, each once in a run."""
        new = [name for name in names if name not in self._named and not name.startswith(_STAGED)]
        self._named.update(new)
        if new:
            logger.warning("Push to the Hub: %s", sentence_on_left_out(new, "`storm push --include PATTERN`"))


def _push(folder: Path, destination: Destination) -> CommitInfo:
    push = destination.push_of(folder)
    published = push.run()
    return CommitInfo(
        commit_url=f"{push.address(published.repo)}/commit/{published.commit}",
        commit_message=destination.message,
        commit_description="",
        oid=published.commit,
        _endpoint=push.api.endpoint,
    )


def _push_staged(folder: Path, destination: Destination) -> CommitInfo:
    try:
        return _push(folder, destination)
    except (StormError, OSError) as error:
        _log_failure(destination, error)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _log_failure(destination: Destination, error: Exception) -> None:
    logger.error("Push to the Hub (%s) failed, training goes on: %s", destination.message, error)


def _link(file: Path, place: Path) -> None:
    try:
        os.link(file, place)
    except OSError:  # a file system without hard links
        shutil.copyfile(file, place)


_NOT_SENT = "training_args.bin\n"  # a pickle that other ways of uploading a folder shall leave out, too


class Publishing(SFTTrainer):
    """Card on each save and push, and pushes by the rules of `storm push`, during training and at its end."""

    _stage: ClassVar[Stage] = "base"
    _tag_names: ClassVar[list[str]] = ["trl", "storm"]
    state: TrainerState
    hub_model_id: str | None

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            self.write_card(folder)  # over the form that PEFT leaves to be filled
            (folder / ".gitignore").write_text(_NOT_SENT)

    def create_model_card(self, *args: Any, dataset_name: str | None = None, **kwargs: Any) -> None:
        """Write the checkpoint's card from the run's own numbers.

        Args:
            args:
                What other trainers name the model by; ours is named by its repository or its folder.
            dataset_name (`str`, *optional*):
                The data set on the Hub, or its folder, that the model was trained on.
            kwargs:
                What else other trainers take.
        """
        if dataset_name is not None:
            self._dataset_name = dataset_name
        if self.is_world_process_zero():
            self.write_card(Path(self.args.output_dir))

    def write_card(self, folder: Path) -> None:
        """Write the card into a folder, with what it was rendered from."""
        dataset = getattr(self, "_dataset_name", None) or origin_of(self.train_dataset)
        facts = facts_of_model(
            self.model,
            name=self._name_of_model(),
            stage=self._stage,
            tags=tuple(self._tag_names),
            num_steps=self.state.global_step or None,
            bottleneck_share=self.args.bottleneck_share or None,
            datasets=(dataset,) if is_hub_name(dataset) else None,
        )
        write_card(facts, folder)

    def _name_of_model(self) -> str:
        name = getattr(self, "hub_model_id", None) or self.args.hub_model_id
        return str(name or Path(self.args.output_dir).resolve().name)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Push a checkpoint in the background: what `storm push` would publish of it.

        A push that is refused or fails is logged and does not end the training.
        """
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        if not (self.args.hub_always_push or self._pushes.is_done):
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        at = f"step {self.state.global_step}"
        if self.args.save_strategy == SaveStrategy.EPOCH:
            at = f"epoch {int(self.state.epoch or 0)}"
        self._pushes.begin(Path(checkpoint_folder), self._destination(f"Training in progress, {at}"))

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> CommitInfo | Future[CommitInfo] | None:
        """Save the model and push it: what `storm push` would publish of `output_dir`, and nothing else.

        Args:
            commit_message (`str`, *optional*, defaults to `"End of training"`):
                Title of the commit.
            blocking (`bool`, *optional*, defaults to `True`):
                Whether to wait until it is done.
            token (`str`, *optional*):
                Token that may write. By default `args.hub_token`.
            revision (`str`, *optional*):
                Branch. By default `args.hub_revision`, else the main one.
            private (`bool`, *optional*):
                Whether a new repository is private. By default `args.hub_private_repo`.
            kwargs:
                What `create_model_card` takes, such as `dataset_name`.

        Returns:
            [`~huggingface_hub.CommitInfo`], or its `Future` if not `blocking`. None on all processes but the first.

        Raises:
            PublicationError: If the folder holds something that must not be published.
            CheckpointError: If it is not complete.
            ServerError: If the server cannot be reached, refused, or was cut off.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if self.hub_model_id is None:
            self.init_hf_repo(token=token or self.args.hub_token, private=private)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self.create_model_card(**kwargs)
        self._finish_current_push()
        destination = self._destination(commit_message or "End of training", token, revision)
        return self._pushes.push(Path(self.args.output_dir), destination, blocking=blocking)

    def _finish_current_push(self) -> None:
        self._pushes.wait()

    @cached_property
    def _pushes(self) -> TrainerPushes:
        return TrainerPushes(Path(self.args.output_dir))

    def _destination(self, message: str, token: str | None = None, revision: str | None = None) -> Destination:
        return Destination(
            repo=str(self.hub_model_id),
            message=message,
            token=token or self.args.hub_token,
            revision=revision or self.args.hub_revision or "main",
        )
