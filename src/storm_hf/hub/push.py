"""A built data set becomes a repository on the Hub. The same command goes on with an upload that was cut off.

Large files are uploaded one by one, named by the hash of their contents: what the server has already is not sent again. One
commit at the end makes all of them visible at once, so that a repository never shows half a data set.
"""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from storm_hf.errors import DatasetError, ServerError
from storm_hf.hub.dataset_card import Published, dataset_card
from storm_hf.hub.dataset_folder import DATA, FINGERPRINT, MANIFEST, STATISTICS, DatasetFolder
from storm_hf.hub.licenses import LicenseRule
from storm_hf.hub.published_shards import VIDEOS, ShardPlan, plan_shard, write_features, write_videos
from storm_hf.hub.refusals import check_folder, check_texts, without_folders
from storm_hf.hub.thoughts_picture import PICTURE, PicturedRow, draw_picture, pictured_rows


# That of the library below the client, `httpx` or `httpx2`: what is raised where there is no answer at all.
_HTTPError: type[Exception] = HfHubHTTPError.__bases__[0]


@dataclass(frozen=True)
class Publication:
    """What became of a push.

    Args:
        repo (`str`):
            The repository, with its owner.
        commit (`str`):
            The commit that holds the data set.
        is_public (`bool`):
            Whether everybody can see it.
        num_rows (`int`):
            Rows that were published.
        withheld (`dict[str, int]`):
            From licences to how many clips were not published.
    """

    repo: str
    commit: str
    is_public: bool
    num_rows: int
    withheld: dict[str, int]


@dataclass(frozen=True)
class DatasetPush:
    """Publishes a data set of thoughts.

    Args:
        folder (`Path`):
            What a builder wrote to its end.
        repo (`str`):
            Name of the repository, which is made if it is not there.
        public (`bool`, *optional*, defaults to `False`):
            Whether everybody may see it. Without, a repository that is public already is refused.
        embeds (`bool`, *optional*, defaults to `True`):
            Whether videos are published inside Parquet files, as far as their licences allow. Without, rows have the
            names of their clips only.
        revision (`str`, *optional*, defaults to `"main"`):
            The branch.
        tag (`str`, *optional*):
            A name for this version.
        rule ([`LicenseRule`], *optional*):
            Says which videos may be published.
        api ([`~huggingface_hub.HfApi`], *optional*):
            Knows the server and the token.
        on_uploaded (`Callable[[str], None]`, *optional*):
            Called with the name of each large file once the server has it.

    Example:
        ```python
        DatasetPush(Path("data/thoughts"), "me/storm-thoughts").run()
        ```
    """

    folder: Path
    repo: str
    public: bool = False
    embeds: bool = True
    revision: str = "main"
    tag: str | None = None
    rule: LicenseRule = field(default_factory=LicenseRule)
    api: HfApi = field(default_factory=HfApi)
    on_uploaded: Callable[[str], None] | None = None

    @cached_property
    def dataset(self) -> DatasetFolder:
        """The data set on this machine."""
        return DatasetFolder.open(self.folder)

    def run(self) -> Publication:
        """Upload what the server does not have, and commit.

        Returns:
            [`Publication`]: What became of it.

        Raises:
            DatasetError: If the folder holds no complete data set, or something that must not be published.
            ServerError: If the upload was cut off; the same call goes on.
        """
        check_folder(self.dataset.path)
        small = self._small_files()
        with _told_in_one_sentence(self.repo):
            repo = self._open_repository()
            published, large = self._upload_shards(repo)
            commit = self._commit(repo, [*large, *small, *self._descriptions(repo, published)])
            if self.tag:
                self.api.create_tag(repo, tag=self.tag, revision=commit, repo_type="dataset", exist_ok=True)
            if self.public:
                self.api.update_repo_settings(repo, private=False, repo_type="dataset")
        num_rows = sum(self.dataset.manifest["num_rows"].values())
        return Publication(repo, commit, self.public, num_rows, dict(sorted(published.withheld.items())))

    def _open_repository(self) -> str:
        """Make the repository, private until everything is there, or make sure that it is as private as was asked for."""
        try:
            info = self.api.dataset_info(self.repo)
        except RepositoryNotFoundError:
            repo = self.api.create_repo(self.repo, repo_type="dataset", private=True, exist_ok=True).repo_id
        else:
            repo = info.id
            if not info.private and not self.public:
                raise DatasetError(
                    f"Expected the repository {repo} to be private but everybody can see it. Say that this is meant with "
                    "--public, or make it private first."
                )
        if self.revision != "main":
            self.api.create_branch(repo, branch=self.revision, repo_type="dataset", exist_ok=True)
        return repo

    def _upload_shards(self, repo: str) -> tuple[Published, list[CommitOperationAdd]]:
        """Write one shard at a time as it is published, upload it, and remove it again."""
        published, operations = Published(), []
        pictured: list[PicturedRow] = []
        for shard in self.dataset.shards:
            plan = plan_shard(self.dataset, shard, self.rule, embeds=self.embeds)
            _count(plan, published)
            with tempfile.TemporaryDirectory(prefix="storm-push-") as folder:
                features, videos = (Path(folder, kind, shard.name) for kind in (DATA, VIDEOS))
                features.parent.mkdir()
                videos.parent.mkdir()
                write_features(plan, self.dataset, features)
                written = {f"{DATA}/{shard.name}": features}
                if write_videos(plan, self.dataset, videos):
                    written[f"{VIDEOS}/{shard.name}"] = videos
                for name, path in written.items():
                    published.num_bytes[name.partition("/")[0]] += path.stat().st_size
                    operations.append(self._upload(repo, name, path, published))
            pictured = pictured_rows(plan, pictured)
        operations.append(self._upload(repo, STATISTICS, self.dataset.path / STATISTICS, published))
        if pictured:
            operations.append(self._upload(repo, PICTURE, draw_picture(pictured), published))
            published.picture = PICTURE
        return published, operations

    def _upload(self, repo: str, name: str, content: Path | bytes, published: Published) -> CommitOperationAdd:
        operation = CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
        self.api.preupload_lfs_files(repo, [operation], repo_type="dataset", revision=self.revision)
        published.files[name] = operation.upload_info.sha256.hex()
        if self.on_uploaded is not None:
            self.on_uploaded(name)
        return operation

    def _small_files(self) -> list[CommitOperationAdd]:
        path = self.dataset.path / FINGERPRINT
        return [_json_file(FINGERPRINT, json.loads(path.read_text(encoding="utf-8")))] if path.is_file() else []

    def _descriptions(self, repo: str, published: Published) -> list[CommitOperationAdd]:
        """The manifest with the hashes of what was published, and the card."""
        card = str(dataset_card(repo, self.dataset.manifest, published))
        check_texts(card.splitlines(), "the card")
        return [
            _json_file(MANIFEST, {**self.dataset.manifest, "sha256": published.files}),
            CommitOperationAdd("README.md", card.encode()),
        ]

    def _commit(self, repo: str, operations: list[CommitOperationAdd]) -> str:
        """Show the new files, and remove the shards and the picture of an earlier version that are none of them."""
        new = {operation.path_in_repo for operation in operations}
        there = self.api.list_repo_files(repo, repo_type="dataset", revision=self.revision)
        replaced = (f"{DATA}/", f"{VIDEOS}/", PICTURE)
        old = [name for name in there if name.startswith(replaced) and name not in new]
        info = self.api.create_commit(
            repo,
            [*operations, *map(CommitOperationDelete, old)],
            commit_message="Publish a data set of thoughts",
            repo_type="dataset",
            revision=self.revision,
        )
        return str(info.oid)


def _json_file(name: str, content: Any) -> CommitOperationAdd:
    text = json.dumps(without_folders(content), indent=2, sort_keys=True) + "\n"
    check_texts(text.splitlines(), name)
    return CommitOperationAdd(name, text.encode())


def _count(plan: ShardPlan, published: Published) -> None:
    published.sources.update(origin.source for origin in plan.origins)
    published.licenses.update(origin.license for origin in plan.origins)
    published.withheld.update(plan.withheld)
    published.thought_licenses.update(plan.table["license"].to_pylist())
    names = (plan.table[name].to_pylist() for name in ("generator", "generator_revision"))
    published.generators.update(zip(*names, strict=True))


@contextmanager
def _told_in_one_sentence(repo: str) -> Iterator[None]:
    """Turn what the client raises when a server fails into one sentence that says how to go on."""
    try:
        yield
    except (_HTTPError, RuntimeError) as error:  # the client wraps an upload's failure in a `RuntimeError`
        cause = error.__cause__ or error
        raise ServerError(
            f"Expected to publish in {repo} but the server stopped: {' '.join(str(cause).split())} Give the same command "
            "again: it sends only what is missing."
        ) from error
