"""Pushes of a run to the Hub, in the background while it trains, and at its end."""

import logging
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitInfo, HfApi
from transformers.utils.hub import hf_api

from storm_hf.errors import StormError
from storm_hf.hub.checkpoint_push import CheckpointPush
from storm_hf.hub.known_files import select_model_files, sentence_on_left_out


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
