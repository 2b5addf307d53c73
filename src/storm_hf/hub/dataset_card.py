"""The card of a data set of thoughts, written from its manifest and from what was published of it."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

from storm_hf.hub.cards import CITATION, PAPER, template
from storm_hf.hub.licenses import license_family
from storm_hf.hub.refusals import last_name


_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_TAGS = ["storm", "storm-thoughts", "video", "latent-reasoning"]


@dataclass
class Published:
    """What was published, counted while it was written.

    Args:
        sources (`Counter[str]`):
            Rows of each collection.
        licenses (`Counter[str]`):
            Rows whose clip has this licence.
        withheld (`Counter[str]`):
            Rows of each licence whose clip is not published.
        thought_licenses (`Counter[str]`):
            Rows whose thought video has this licence.
        generators (`Counter[tuple[str, str]]`):
            Rows of each generator and revision.
        num_bytes (`Counter[str]`):
            Bytes of the Parquet files of `data` and of `videos`.
        files (`dict[str, str]`):
            From the name of each large file to the hash of its contents.
        picture (`str`):
            Path of the picture of clips beside their thoughts in the repository; empty where there is none.
    """

    sources: Counter[str] = field(default_factory=Counter)
    licenses: Counter[str] = field(default_factory=Counter)
    withheld: Counter[str] = field(default_factory=Counter)
    thought_licenses: Counter[str] = field(default_factory=Counter)
    generators: Counter[tuple[str, str]] = field(default_factory=Counter)
    num_bytes: Counter[str] = field(default_factory=Counter)
    files: dict[str, str] = field(default_factory=dict)
    picture: str = ""


def dataset_card(repo: str, manifest: dict[str, Any], published: Published) -> DatasetCard:
    """Render the card.

    Args:
        repo (`str`):
            Name of the repository.
        manifest (`dict[str, Any]`):
            What the builder wrote last.
        published ([`Published`]):
            What was published of it.

    Returns:
        [`~huggingface_hub.DatasetCard`]: A value that is not known is an absent line, never a placeholder.
    """
    settings = manifest["settings"]
    encoder = last_name(manifest["encoder"])
    splits = {split: count for split, count in manifest["num_rows"].items() if count}
    return DatasetCard.from_template(
        _metadata(repo, splits, published),
        template_str=template("dataset_card"),
        name=repo.partition("/")[2] or repo,
        repo=repo,
        paper=PAPER,
        citation=CITATION,
        picture=published.picture,
        num_rows=splits,
        split=next(iter(splits)),
        feature_shape=manifest["feature_shape"],
        encoder=encoder,
        is_encoder_public=encoder == manifest["encoder"],
        encoder_revision=manifest["encoder_revision"],
        rank=settings.get("rank"),
        num_latents=settings.get("num_latents"),
        sources=dict(sorted(published.sources.items())),
        generators=[(*key, count) for key, count in sorted(published.generators.items())],
        licenses=[
            (name, count, count - published.withheld[name]) for name, count in sorted(published.licenses.items())
        ],
        num_withheld=published.withheld.total(),
        has_videos=bool(published.num_bytes["videos"]),
        rejected=[
            (step, reason, count)
            for step, reasons in manifest.get("num_rejected", {}).items()
            for reason, count in reasons.items()
        ],
        size_features=_readable(published.num_bytes["data"]),
        size_videos=_readable(published.num_bytes["videos"]) if published.num_bytes["videos"] else "",
    )


def _metadata(repo: str, splits: dict[str, int], published: Published) -> DatasetCardData:
    total = sum(splits.values())
    licenses = {*published.licenses, *published.thought_licenses}
    size = next((name for limit, name in _SIZES if total < limit), "n>1M")
    return DatasetCardData(
        pretty_name=repo.partition("/")[2] or repo,
        tags=_TAGS,
        task_categories=["video-text-to-text"],
        size_categories=[size],
        configs=_configs(splits, published),
        **_license(licenses),
    )


def _configs(splits: dict[str, int], published: Published) -> list[dict[str, Any]]:
    """Which files make which configuration. A split of which no video is published is not among the videos."""

    def of(folder: str) -> list[dict[str, str]]:
        present = [split for split in splits if any(name.startswith(f"{folder}/{split}-") for name in published.files)]
        return [{"split": split, "path": f"{folder}/{split}-*.parquet"} for split in present]

    features = {"config_name": "features", "data_files": of("data"), "default": True}
    videos = {"config_name": "videos", "data_files": of("videos")}
    return [features, videos] if videos["data_files"] else [features]


def _license(names: set[str]) -> dict[str, Any]:
    """The one licence of all rows as the Hub knows it, or that each row has its own; nothing where none is known."""
    if len(names) == 1 and license_family(name := next(iter(names))) not in ("unknown", "other"):
        return {"license": name.strip().lower().replace(" ", "-")}
    known = {name for name in names if license_family(name) != "unknown"}
    return {"license": "other", "license_name": "each-row-has-its-own"} if known else {}


def _readable(num_bytes: int) -> str:
    size, unit = float(num_bytes), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{num_bytes} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
