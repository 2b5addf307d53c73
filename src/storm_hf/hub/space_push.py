"""A Space on the Hub: the page of `storm app`, for a checkpoint that lies there already."""

from dataclasses import KW_ONLY, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, SpaceCard, SpaceCardData

from storm_hf.hub.card_metadata import CITATION, PAPER, render_card
from storm_hf.hub.known_files import Preview, size_of
from storm_hf.hub.repository import (
    CARD,
    Push,
    Pushed,
    card_file,
    check_repository_name,
    raised_as_server_error,
    text_file,
    text_in,
)


GRADIO_VERSION = "6.31.0"  # as in constraints-app.txt
_PYTHON_VERSION = "3.11"


@dataclass(frozen=True)
class PublishedSpace(Pushed):
    """A Space on the Hub."""

    @property
    def summary(self) -> list[str]:
        """Summary for people, line by line."""
        return [f"A page for {'everybody' if self.is_public else 'you alone'}; it starts in a few minutes."]


@dataclass(frozen=True)
class SpacePush(Push):
    """Publishes a page on which a checkpoint is asked.

    Args:
        repo (`str`):
            Name of the Space, which is made if it is not there. For the other arguments see [`Push`].
        model (`str`):
            Name of the checkpoint on the Hub.

    Example:
        ```python
        SpacePush("me/ask-storm", model="me/storm").run()
        ```
    """

    kind = "space"

    folder: Path = field(default=Path(), init=False)  # there is none: its files are rendered
    _: KW_ONLY
    model: str

    @property
    def subject(self) -> str:
        """Short description of the publication."""
        return f"a page that asks {self.model}"

    def files(self, repo: str) -> list[CommitOperationAdd]:
        """The card, the page, and what it needs.

        Args:
            repo (`str`):
                The Space, with its owner.

        Raises:
            PublicationError: If the model is not a Hub repository id.
        """
        self._check_model()
        card = space_card(repo, model=self.model, gradio_version=GRADIO_VERSION, python_version=_PYTHON_VERSION)
        page = files("storm_hf.hub").joinpath("templates/space_app.py.txt").read_text(encoding="utf-8")
        return [
            card_file(str(card), self.kind),
            text_file("app.py", page.format(model=self.model)),
            text_file("requirements.txt", "storm-hf[app]\n"),
        ]

    def run(self) -> PublishedSpace:
        """Make the Space and commit its files.

        Returns:
            [`PublishedSpace`]: What became of it.

        Raises:
            PublicationError: If the model is not a Hub repository id, or the Space would be public without confirmation.
            ServerError: If the upload was cut off; the same call goes on.
        """
        self._check_model()
        with raised_as_server_error(self):
            repo = self.open_repository(space_sdk="gradio")
            commit = self.commit(repo, self.files(repo), "Publish a page of STORM", lambda name: False)
        return PublishedSpace(repo, commit, bool(self.public))

    def dry_run(self) -> Preview:
        """List what would be published. Needs no token and no network.

        Raises:
            PublicationError: If the model is not a Hub repository id.
        """
        files = {each.path_in_repo: text_in(each) for each in self.files(self.repo)}
        sizes = tuple(sorted((name, size_of(content)) for name, content in files.items()))
        return Preview(self.repo, files[CARD], sizes, ())

    def _check_model(self) -> None:
        check_repository_name(self.model, "model", "Push it first.")


def space_card(
    name: str, *, model: str, gradio_version: str, python_version: str | None = None, license_name: str | None = None
) -> SpaceCard:
    """Render the card.

    Args:
        name (`str`):
            Name of the Space.
        model (`str`):
            Name of the checkpoint on the Hub that is asked.
        gradio_version (`str`):
            The version of Gradio that the page was tried with.
        python_version (`str`, *optional*):
            The version of Python that it needs.
        license_name (`str`, *optional*):
            Licence of the Space.
    """
    title = name.rpartition("/")[2]
    optional: dict[str, Any] = {"python_version": python_version, "license": license_name}
    return render_card(
        SpaceCard,
        SpaceCardData(
            title=title,
            sdk="gradio",
            sdk_version=gradio_version,
            app_file="app.py",
            models=[model],
            tags=["storm", "video", "latent-reasoning"],
            **{key: value for key, value in optional.items() if value is not None},
        ),
        "space_card",
        title=title,
        model=model,
        paper=PAPER,
        citation=CITATION,
    )
