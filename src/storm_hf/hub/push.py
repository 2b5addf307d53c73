"""A built data set becomes a repository on the Hub. The same command goes on with an upload that was cut off."""

import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from pathlib import Path

import psutil
from huggingface_hub import CommitOperationAdd

from storm_hf.atomic import read_json
from storm_hf.hub.dataset_card import Published, dataset_card
from storm_hf.hub.dataset_folder import DATA, FINGERPRINT, MANIFEST, STATISTICS, WORK, DatasetFolder
from storm_hf.hub.known_files import Preview, files_of, included, inside, size_of
from storm_hf.hub.leak_checks import check_published, without_folders
from storm_hf.hub.licenses import LicenseRule
from storm_hf.hub.published_shards import VIDEOS, ShardPlan, check_rows, plan_shard, write_features, write_videos
from storm_hf.hub.repository import CARD, Push, Pushed, card_file, json_file, raised_as_server_error, text_in
from storm_hf.hub.thoughts_picture import PICTURE, PicturedRow, draw_picture, pictured_rows


@dataclass(frozen=True)
class Publication(Pushed):
    """A published data set: the fields of [`Pushed`], and its contents.

    Args:
        num_rows (`int`):
            Rows that were published.
        withheld (`dict[str, int]`):
            From licences to how many clips were not published.
    """

    num_rows: int
    withheld: dict[str, int]

    @property
    def summary(self) -> list[str]:
        """Summary for people, line by line."""
        return [*_on_withheld(self.withheld), *self.lines_on_left_out, f"{self.num_rows} rows, {self.audience}."]


@dataclass(frozen=True)
class DatasetPush(Push):
    """Publishes a data set of thoughts.

    Args:
        folder (`Path`):
            A finished data-set folder. For the other arguments see [`Push`].
        embeds (`bool`, *optional*, defaults to `True`):
            Whether videos are published inside Parquet files, as far as their licences allow. Without, rows have the
            names of their clips only.
        rule ([`LicenseRule`], *optional*):
            Says which videos may be published.

    Example:
        ```python
        DatasetPush(Path("data/thoughts"), "me/storm-thoughts").run()
        ```
    """

    kind = "dataset"

    _: KW_ONLY
    embeds: bool = True
    rule: LicenseRule = field(default_factory=LicenseRule)

    @cached_property
    def dataset(self) -> DatasetFolder:
        """The data set on this machine."""
        return DatasetFolder.open(self.folder)

    @property
    def subject(self) -> str:
        """Short description of the publication."""
        return f"{self._num_rows} rows"

    @property
    def _num_rows(self) -> int:
        return sum(self.dataset.manifest["num_rows"].values())

    def run(self) -> Publication:
        """Upload what the server does not have, and commit.

        Returns:
            [`Publication`]: What became of it.

        Raises:
            DatasetError: If the folder holds no complete data set.
            PublicationError: If it holds something that must not be published, or everybody would see it unasked.
            ServerError: If the upload was cut off; the same call goes on.
        """
        _remove_leftovers()
        (planned, _), further, small = self._planned(), self._further(), self._small_files()
        card_file(str(dataset_card(self.repo, self.dataset.manifest, planned)), self.kind)
        with raised_as_server_error(self):
            repo = self.open_repository()
            self.check_card(str(dataset_card(repo, self.dataset.manifest, planned)))
            published, large = self._upload_shards(repo)
            large += [self._upload(repo, name, path, published) for name, path in further.items()]
            operations = [*large, *small, *self._descriptions(repo, published)]
            commit = self.commit(repo, operations, "Publish a data set of thoughts", _is_of_a_data_set)
        left_out = self.dataset.left_out({*published.files})
        return Publication(
            repo,
            commit,
            bool(self.public),
            self._num_rows,
            dict(sorted(published.withheld.items())),
            left_out=left_out,
        )

    def dry_run(self) -> Preview:
        """List what would be published. Needs no token and no network, and writes nothing.

        Raises:
            DatasetError: If the folder holds no complete data set.
            PublicationError: If it holds something that must not be published.
        """
        (planned, sizes), further = self._planned(), self._further()
        card = card_file(str(dataset_card(self.repo, self.dataset.manifest, planned)), self.kind)
        sizes |= {name: size_of(path) for name, path in further.items()}
        for each in (card, *self._small_files(), self._manifest_file(planned)):
            sizes[each.path_in_repo] = size_of(text_in(each))
        notes = tuple(_on_withheld(dict(sorted(planned.withheld.items()))))
        return Preview(self.repo, text_in(card), tuple(sorted(sizes.items())), self.dataset.left_out(sizes), notes)

    def _planned(self) -> tuple[Published, dict[str, int]]:
        """Look through all rows before anything is sent.

        Returns:
            [`Published`] and `dict[str, int]`: Counts of what will be published, and about how many bytes each large file has.
        """
        check_published(self.dataset.path / STATISTICS, STATISTICS)
        published, sizes = Published(), {STATISTICS: (self.dataset.path / STATISTICS).stat().st_size}
        for shard in self.dataset.shards:
            plan = plan_shard(self.dataset, shard, self.rule, embeds=self.embeds, with_features=False)
            check_rows(plan, self.dataset, shard.name)
            _count(plan, published)
            sizes[f"{DATA}/{shard.name}"] = shard.stat().st_size
            if videos := [path for path in (*plan.clips, *plan.thoughts) if path is not None]:
                sizes[f"{VIDEOS}/{shard.name}"] = sum(path.stat().st_size for path in videos)
        for name, size in sizes.items():
            published.files[name] = ""
            published.num_bytes[name.partition("/")[0]] += size
        return published, sizes

    def _further(self) -> dict[str, Path]:
        """The files that are published since they were asked for."""
        path = self.dataset.path
        never = (*WORK, f"{DATA}/", f"{VIDEOS}/", CARD, MANIFEST, FINGERPRINT, STATISTICS)
        files = {name: inside(path, name) for name in sorted(included(files_of(path), self.include, never))}
        for name, file in files.items():
            check_published(file, name)
        return files

    def _upload_shards(self, repo: str) -> tuple[Published, list[CommitOperationAdd]]:
        """Write one shard at a time as it is published, upload it, and remove it again."""
        published, operations = Published(), []
        pictured: list[PicturedRow] = []
        for shard in self.dataset.shards:
            plan = plan_shard(self.dataset, shard, self.rule, embeds=self.embeds)
            _count(plan, published)
            with push_folder() as folder:
                for name, path in _written(plan, self.dataset, shard.name, folder).items():
                    published.num_bytes[name.partition("/")[0]] += path.stat().st_size
                    operations.append(self._upload(repo, name, path, published))
            pictured = pictured_rows(plan, pictured)
        operations.append(self._upload(repo, STATISTICS, self.dataset.path / STATISTICS, published))
        if pictured:
            operations.append(self._upload(repo, PICTURE, draw_picture(pictured), published))
            published.picture = PICTURE
        return published, operations

    def _upload(self, repo: str, name: str, content: Path | bytes, published: Published) -> CommitOperationAdd:
        (operation,) = self.upload(repo, {name: content})
        published.files[name] = operation.upload_info.sha256.hex()
        return operation

    def _small_files(self) -> list[CommitOperationAdd]:
        path = self.dataset.path / FINGERPRINT
        if not path.is_file():
            return []
        return [json_file(FINGERPRINT, without_folders(read_json(path)))]

    def _descriptions(self, repo: str, published: Published) -> list[CommitOperationAdd]:
        """The manifest with the hashes of what was published, and the card."""
        card = str(dataset_card(repo, self.dataset.manifest, published))
        return [self._manifest_file(published), card_file(card, self.kind)]

    def _manifest_file(self, published: Published) -> CommitOperationAdd:
        return json_file(MANIFEST, without_folders({**self.dataset.manifest, "sha256": published.files}))


def _written(plan: ShardPlan, dataset: DatasetFolder, name: str, folder: Path) -> dict[str, Path]:
    """Write the files that a shard is published as, and name them."""
    features, videos = (folder / kind / name for kind in (DATA, VIDEOS))
    features.parent.mkdir()
    videos.parent.mkdir()
    write_features(plan, dataset, features)
    written = {f"{DATA}/{name}": features}
    return {**written, f"{VIDEOS}/{name}": videos} if write_videos(plan, dataset, videos) else written


def _on_withheld(withheld: dict[str, int]) -> list[str]:
    return [
        f"{count} {'clip' if count == 1 else 'clips'} with the licence {name!r} withheld: only features and names are published."
        for name, count in withheld.items()
    ]


def _is_of_a_data_set(name: str) -> bool:
    return name.startswith((f"{DATA}/", f"{VIDEOS}/", PICTURE))


def _count(plan: ShardPlan, published: Published) -> None:
    published.sources.update(origin.source for origin in plan.origins)
    published.licenses.update(origin.license for origin in plan.origins)
    published.withheld.update(plan.withheld)
    published.thought_licenses.update(plan.table["license"].to_pylist())
    names = (plan.table[name].to_pylist() for name in ("generator", "generator_revision"))
    published.generators.update(zip(*names, strict=True))


_PREFIX = "storm-push"
_HOST = re.sub(r"\W+", "_", socket.gethostname()) or "host"  # a temporary folder may be shared by machines
_LEFT = re.compile(rf"{_PREFIX}-{_HOST}-(\d+)-\w+")


@contextmanager
def push_folder() -> Iterator[Path]:
    """Make a temporary folder that is removed at the end, or by the next push after a kill."""
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}-{_HOST}-{os.getpid()}-") as folder:
        yield Path(folder)


def _remove_leftovers() -> list[Path]:
    """Remove the temporary folders of pushes on this machine whose process is gone.

    Returns:
        `list[Path]`: Those that were removed.
    """
    removed = []
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}-*"):
        match = _LEFT.fullmatch(path.name)
        if match and path.is_dir() and not path.is_symlink() and not psutil.pid_exists(int(match[1])):
            shutil.rmtree(path, ignore_errors=True)
            removed.append(path)
    return removed
