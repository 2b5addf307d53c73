"""Steps of a publication: create the repository, upload large files, commit, tag, set the visibility.

Files are uploaded first, large ones one by one, named by the hash of their contents: what the server has already is not sent
again. One commit at the end makes all of them visible at once, so that a repository never shows half of what was meant.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status, validate_repo_id

from storm_hf.errors import PublicationError, ServerError, StormError, one_line
from storm_hf.hub.card_metadata import RepositoryKind, check_card
from storm_hf.hub.known_files import Preview, sentence_on_left_out
from storm_hf.hub.leak_checks import check_document, check_json


CARD = "README.md"

# That of the library below the client, `httpx` or `httpx2`: what is raised where there is no answer at all.
_HTTPError: type[Exception] = HfHubHTTPError.__bases__[0]
SMALL_BYTES = 1_000_000
_BAD_REQUEST, _UNAUTHORIZED, _NOT_FOUND = 400, 401, 404


@dataclass(frozen=True)
class Pushed:
    """Outcome of a push.

    Args:
        repo (`str`):
            The repository, with its owner.
        commit (`str`):
            The commit that holds what was published.
        is_public (`bool`):
            Whether everybody can see it.
        left_out (`tuple[str, ...]`, *optional*):
            Files of the folder that were not published, since they are of no known kind.
    """

    repo: str
    commit: str
    is_public: bool
    left_out: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    def audience(self) -> str:
        """Visibility of the repository."""
        return "for everybody" if self.is_public else "private"

    @property
    def lines_on_left_out(self) -> list[str]:
        """The line that names what was left out, if there is any."""
        return [sentence_on_left_out(self.left_out)] if self.left_out else []


@dataclass(frozen=True)
class Push(ABC):
    """Base of all publications: their arguments and their steps.

    Args:
        folder (`Path`):
            Folder to publish.
        repo (`str`):
            Name of the repository, which is made if it is not there.
        public (`bool`, *optional*, defaults to `False`):
            Whether everybody may see it. Without, a repository that is public already is refused. None leaves one as it is.
        revision (`str`, *optional*, defaults to `"main"`):
            The branch.
        tag (`str`, *optional*):
            A name for this version.
        include (`Sequence[str]`, *optional*):
            Patterns of files that are published although they are of no known kind. They are looked through as all are.
        api ([`~huggingface_hub.HfApi`], *optional*):
            Knows the server and the token.
        on_uploaded (`Callable[[str], None]`, *optional*):
            Called with the name of each file once the server has it, or knows that it comes with the commit.

    Raises:
        PublicationError: If no repository can have this name, such as an address.
    """

    kind: ClassVar[RepositoryKind]

    folder: Path
    repo: str
    _: KW_ONLY
    public: bool | None = False
    revision: str = "main"
    tag: str | None = None
    include: Sequence[str] = ()
    api: HfApi = field(default_factory=HfApi)
    on_uploaded: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        check_repository_name(self.repo, "repository", "Give its name alone.")

    def address(self, repo: str) -> str:
        """Repository id, with its owner."""
        return f"{self.api.endpoint}/{'' if self.kind == 'model' else self.kind + 's/'}{repo}"

    @abstractmethod
    def dry_run(self) -> Preview:
        """List what would be published. Needs no token and no network, and writes nothing."""

    def open_repository(self, **creation: Any) -> str:
        """Make the repository, private until everything is there, or make sure that it is as private as was asked for.

        Args:
            creation:
                What else `create_repo` takes, such as the `space_sdk` of a Space.

        Returns:
            `str`: Its name with its owner.

        Raises:
            PublicationError: If everybody can see it, and that was not asked for.
        """
        try:
            info = self.api.repo_info(self.repo, repo_type=self.kind)
        except RepositoryNotFoundError:
            made = self.api.create_repo(self.repo, repo_type=self.kind, private=True, exist_ok=True, **creation)
            repo = made.repo_id
        else:
            repo = info.id
            if not info.private and self.public is False:
                raise PublicationError(
                    f"Expected the repository {repo} to be private but everybody can see it. Say that this is meant with "
                    "--public, or make it private first."
                )
        if self.revision != "main":
            self.api.create_branch(repo, branch=self.revision, repo_type=self.kind, exist_ok=True)
        return repo

    def check_card(self, card: str) -> None:
        """Ask the server whether it takes the metadata of a card, before large files are sent.

        Raises:
            PublicationError: If it does not.
        """
        answer = get_session().post(
            f"{self.api.endpoint}/api/validate-yaml",
            json={"content": card, "repoType": self.kind},
            headers=build_hf_headers(token=self.api.token),
        )
        if answer.status_code == _BAD_REQUEST:
            problems = [str(error.get("message")) for error in answer.json().get("errors", [])]
            raise _refused_card("; ".join(problems))

    def read(self, repo: str, name: str) -> str | None:
        """Read a small text file of the repository; None if it is not there."""
        revision = quote(self.revision, safe="")
        answer = get_session().get(
            f"{self.address(repo)}/resolve/{revision}/{name}", headers=build_hf_headers(token=self.api.token)
        )
        if answer.status_code == _NOT_FOUND:
            return None
        hf_raise_for_status(answer)
        return str(answer.text)

    def upload(self, repo: str, files: Mapping[str, Path | bytes]) -> list[CommitOperationAdd]:
        """Send files that the server keeps apart from commits and does not have: small ones with one request, large ones one by one.

        Args:
            repo (`str`):
                The repository, with its owner.
            files (`Mapping[str, Path | bytes]`):
                Contents of the files by their paths there.

        Returns:
            `list[`[`~huggingface_hub.CommitOperationAdd`]`]`: What the commit takes.
        """
        operations = [
            CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()
        ]
        small = [each for each in operations if each.upload_info.size < SMALL_BYTES]
        large = [[each] for each in operations if each.upload_info.size >= SMALL_BYTES]
        for group in filter(None, [small, *large]):
            self.api.preupload_lfs_files(repo, group, repo_type=self.kind, revision=self.revision)
            if self.on_uploaded is not None:
                for operation in group:
                    self.on_uploaded(operation.path_in_repo)
        return operations

    def commit(
        self, repo: str, operations: Sequence[CommitOperationAdd], message: str, replaced: Callable[[str], bool]
    ) -> str:
        """Commit the files, delete stale ones, create the tag, set the visibility.

        Args:
            repo (`str`):
                The repository, with its owner.
            operations (`Sequence[CommitOperationAdd]`):
                The files.
            message (`str`):
                Title of the commit.
            replaced (`Callable[[str], bool]`):
                Whether a file that is there already belongs to what is published, and goes if it is not sent again.

        Returns:
            `str`: The commit.
        """
        new = {operation.path_in_repo for operation in operations}
        there = self.api.list_repo_files(repo, repo_type=self.kind, revision=self.revision)
        old = [CommitOperationDelete(name) for name in there if replaced(name) and name not in new]
        info = self.api.create_commit(
            repo, [*operations, *old], commit_message=message, repo_type=self.kind, revision=self.revision
        )
        commit = str(info.oid)
        if self.tag:
            self.api.create_tag(repo, tag=self.tag, revision=commit, repo_type=self.kind, exist_ok=True)
        if self.public:
            self.api.update_repo_settings(repo, private=False, repo_type=self.kind)
        return commit


def check_repository_name(name: str, what: str, cure: str) -> None:
    """Check that a repository of the Hub can have this name.

    Args:
        name (`str`):
            Name, with or without an owner.
        what (`str`):
            What it is a name of, for the message.
        cure (`str`):
            What to do.

    Raises:
        PublicationError: If none can.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise PublicationError(
            f"Expected the name of a {what} on the Hub, such as me/storm, but got {name!r}. {cure}"
        ) from error


def json_file(name: str, content: object) -> CommitOperationAdd:
    """A small JSON file of a commit.

    Raises:
        PublicationError: If it holds a credential or a path of this machine.
    """
    check_json(content, name)
    return text_file(name, json.dumps(content, indent=2, sort_keys=True) + "\n")


def card_file(text: str, kind: RepositoryKind) -> CommitOperationAdd:
    """The card of a commit.

    Raises:
        PublicationError: If it holds a credential or a path of this machine, or metadata that the Hub refuses.
    """
    check_card(text, kind)
    return text_file(CARD, text)


def text_file(name: str, text: str) -> CommitOperationAdd:
    """A small text file of a commit.

    Raises:
        PublicationError: If it holds a credential or a path of this machine.
    """
    check_document(text, name)
    return CommitOperationAdd(name, text.encode())


def text_in(operation: CommitOperationAdd) -> str:
    """The text of a small file of a commit."""
    with operation.as_file() as file:
        return file.read().decode()


@contextmanager
def raised_as_server_error(push: Push) -> Iterator[None]:
    """Turn a server failure of the client into a one-sentence error with the next step.

    Args:
        push ([`Push`]):
            Publication, with its repository.

    Raises:
        ServerError: If the server cannot be reached, refused, or was cut off.
        PublicationError: If it refused the metadata of the card.
    """
    try:
        yield
    except (OfflineModeIsEnabled, LocalTokenNotFoundError) as error:
        raise ServerError(_sentence(push, error)) from error
    except (_HTTPError, RuntimeError) as error:  # the client wraps an upload's failure in a `RuntimeError`
        wrapped = error.__cause__ if isinstance(error, RuntimeError) else None
        raise ServerError(_sentence(push, wrapped or error)) from error
    except ValueError as error:
        if isinstance(error, StormError) or "metadata" not in str(error):
            raise
        raise _refused_card(one_line(error)) from error


def _sentence(push: Push, cause: BaseException) -> str:
    wanted = f"Expected to publish in {push.repo} but"
    if isinstance(cause, OfflineModeIsEnabled):
        return f"{wanted} HF_HUB_OFFLINE keeps this machine offline. Unset it, and give the same command again. Nothing was published."
    response = getattr(cause, "response", None)
    if response is None and isinstance(cause, _HTTPError):
        return (
            f"{wanted} {push.api.endpoint} cannot be reached ({one_line(cause).rstrip('.')}). Nothing was published. Give the "
            "same command again once it can: it sends only what is missing."
        )
    if isinstance(cause, LocalTokenNotFoundError) or getattr(response, "status_code", None) == _UNAUTHORIZED:
        return f"{wanted} the server does not know who you are. Log in with `hf auth login`, or set HF_TOKEN. Nothing was published."
    return (
        f"{wanted} the server stopped: {one_line(cause).rstrip('.')}. Nothing was published. Give the same command again: it "
        "sends only what is missing."
    )


def _refused_card(problems: str) -> PublicationError:
    return PublicationError(
        f"Expected metadata that the Hub takes in {CARD} but it says: {problems}. Correct the card; nothing was published."
    )
