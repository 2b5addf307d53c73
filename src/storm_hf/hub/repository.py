"""The steps of every publication: open the repository, upload what is large, commit, tag, and let people see it.

Large files are uploaded one by one, named by the hash of their contents: what the server has already is not sent again. One
commit at the end makes all of them visible at once, so that a repository never shows half of what was meant.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from storm_hf.errors import PublicationError, ServerError, one_line
from storm_hf.hub.refusals import check_texts


RepositoryKind = Literal["model", "dataset", "space"]

# That of the library below the client, `httpx` or `httpx2`: what is raised where there is no answer at all.
_HTTPError: type[Exception] = HfHubHTTPError.__bases__[0]


@dataclass(frozen=True)
class Pushed:
    """What became of a push.

    Args:
        repo (`str`):
            The repository, with its owner.
        commit (`str`):
            The commit that holds what was published.
        is_public (`bool`):
            Whether everybody can see it.
    """

    repo: str
    commit: str
    is_public: bool

    @property
    def audience(self) -> str:
        """Who can see it."""
        return "for everybody" if self.is_public else "private"


@dataclass(frozen=True)
class Push:
    """What every publication is told, and the steps that it takes.

    Args:
        folder (`Path`):
            What is published.
        repo (`str`):
            Name of the repository, which is made if it is not there.
        public (`bool`, *optional*, defaults to `False`):
            Whether everybody may see it. Without, a repository that is public already is refused.
        revision (`str`, *optional*, defaults to `"main"`):
            The branch.
        tag (`str`, *optional*):
            A name for this version.
        api ([`~huggingface_hub.HfApi`], *optional*):
            Knows the server and the token.
        on_uploaded (`Callable[[str], None]`, *optional*):
            Called with the name of each file once the server has it, or knows that it comes with the commit.
    """

    kind: ClassVar[RepositoryKind]

    folder: Path
    repo: str
    _: KW_ONLY
    public: bool = False
    revision: str = "main"
    tag: str | None = None
    api: HfApi = field(default_factory=HfApi)
    on_uploaded: Callable[[str], None] | None = None

    def address(self, repo: str) -> str:
        """Where people find it, by its name with its owner."""
        return f"{self.api.endpoint}/{'' if self.kind == 'model' else self.kind + 's/'}{repo}"

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
            if not info.private and not self.public:
                raise PublicationError(
                    f"Expected the repository {repo} to be private but everybody can see it. Say that this is meant with "
                    "--public, or make it private first."
                )
        if self.revision != "main":
            self.api.create_branch(repo, branch=self.revision, repo_type=self.kind, exist_ok=True)
        return repo

    def upload(self, repo: str, name: str, content: Path | bytes) -> CommitOperationAdd:
        """Send one file, if the server keeps such files apart from commits and does not have it.

        Args:
            repo (`str`):
                The repository, with its owner.
            name (`str`):
                Its path there.
            content (`Path` or `bytes`):
                What it holds.

        Returns:
            [`~huggingface_hub.CommitOperationAdd`]: What the commit takes.
        """
        operation = CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
        self.api.preupload_lfs_files(repo, [operation], repo_type=self.kind, revision=self.revision)
        if self.on_uploaded is not None:
            self.on_uploaded(name)
        return operation

    def commit(
        self, repo: str, operations: Sequence[CommitOperationAdd], message: str, replaced: Callable[[str], bool]
    ) -> str:
        """Show the new files, remove those of an earlier version that are none of them, name the version, open the door.

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


def json_file(name: str, content: Any) -> CommitOperationAdd:
    """A small JSON file of a commit.

    Raises:
        PublicationError: If it holds a credential or a path of this machine.
    """
    return text_file(name, json.dumps(content, indent=2, sort_keys=True) + "\n")


def text_file(name: str, text: str) -> CommitOperationAdd:
    """A small text file of a commit.

    Raises:
        PublicationError: If it holds a credential or a path of this machine.
    """
    check_texts(text.splitlines(), name)
    return CommitOperationAdd(name, text.encode())


@contextmanager
def told_in_one_sentence(repo: str) -> Iterator[None]:
    """Turn what the client raises when a server fails into one sentence that says how to go on.

    Raises:
        ServerError: If the server refused, or was cut off.
    """
    try:
        yield
    except (_HTTPError, RuntimeError) as error:  # the client wraps an upload's failure in a `RuntimeError`
        cause = error.__cause__ or error
        raise ServerError(
            f"Expected to publish in {repo} but the server stopped: {one_line(cause)} Give the same command "
            "again: it sends only what is missing."
        ) from error
