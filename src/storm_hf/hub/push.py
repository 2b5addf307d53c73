"""A built data set becomes a repository on the Hub. The same command goes on with an upload that was cut off."""

import tempfile
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from pathlib import Path

from huggingface_hub import CommitOperationAdd

from storm_hf.hub.dataset_card import Published, dataset_card
from storm_hf.hub.dataset_folder import DATA, FINGERPRINT, MANIFEST, STATISTICS, DatasetFolder
from storm_hf.hub.licenses import LicenseRule
from storm_hf.hub.published_shards import VIDEOS, ShardPlan, plan_shard, write_features, write_videos
from storm_hf.hub.refusals import check_folder, without_folders
from storm_hf.hub.repository import Push, Pushed, json_file, text_file, told_in_one_sentence
from storm_hf.hub.thoughts_picture import PICTURE, PicturedRow, draw_picture, pictured_rows
from storm_hf.writing import read_json


@dataclass(frozen=True)
class Publication(Pushed):
    """A data set on the Hub: what [`Pushed`] says, and what it holds.

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
        """What to tell people, line by line."""
        withheld = [
            f"{count} clips with the licence {name!r} were not published, only their features and names."
            for name, count in self.withheld.items()
        ]
        return [*withheld, f"{self.num_rows} rows, {self.audience}."]


@dataclass(frozen=True)
class DatasetPush(Push):
    """Publishes a data set of thoughts.

    Args:
        folder (`Path`):
            What a builder wrote to its end. What else it takes is told in [`Push`].
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
        """What is published, in a few words."""
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
        check_folder(self.dataset.path)
        small = self._small_files()
        with told_in_one_sentence(self.repo):
            repo = self.open_repository()
            published, large = self._upload_shards(repo)
            operations = [*large, *small, *self._descriptions(repo, published)]
            commit = self.commit(repo, operations, "Publish a data set of thoughts", _is_of_a_data_set)
        return Publication(repo, commit, self.public, self._num_rows, dict(sorted(published.withheld.items())))

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
        operation = self.upload(repo, name, content)
        published.files[name] = operation.upload_info.sha256.hex()
        return operation

    def _small_files(self) -> list[CommitOperationAdd]:
        path = self.dataset.path / FINGERPRINT
        if not path.is_file():
            return []
        return [json_file(FINGERPRINT, without_folders(read_json(path)))]

    def _descriptions(self, repo: str, published: Published) -> list[CommitOperationAdd]:
        """The manifest with the hashes of what was published, and the card."""
        return [
            json_file(MANIFEST, without_folders({**self.dataset.manifest, "sha256": published.files})),
            text_file("README.md", str(dataset_card(repo, self.dataset.manifest, published))),
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
