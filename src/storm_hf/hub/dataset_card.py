"""The card of a data set of thoughts, written from its manifest and from what was published of it."""

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

from storm_hf.errors import DatasetError
from storm_hf.hub.card_metadata import CITATION, PAPER, as_words, in_one_line, is_hub_name, render_card, size_category
from storm_hf.hub.known_files import readable_size
from storm_hf.hub.leak_checks import last_name
from storm_hf.hub.licenses import hub_license_of_rows


_TAGS = ["storm", "storm-thoughts", "video", "latent-reasoning"]
_MADE = {  # how thought videos of a source came about
    "simulator": "A simulator drew the states of its world, which are correct.",
    "rendered_chain": "A written chain of thought was drawn as text, one step a picture; no video model was asked. `thought_prompt` "
    "has the text. Where the revision says so, the last step, which concludes with the answer, was left out.",
    "evidence": "They are moments of the clip itself that its annotations name: intervals, or key frames with boxes drawn in. The "
    "question sees all of these moments.",
    "future": "They are the clip's own continuation after the moment of the question, which the question does not see.",
    "segments": "They are parts of a film in the film's own order.",
    "folder": "They were made elsewhere, and taken from a folder.",
}
_SPLIT = re.compile(r"\w+(\.\w+)*")


@dataclass
class Published:
    """Counts of the published rows and videos, taken while they were written.

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
            Manifest of the builder.
        published ([`Published`]):
            Counts of the published rows.

    Returns:
        [`~huggingface_hub.DatasetCard`]: A value that is not known is an absent line, never a placeholder.
    """
    encoder, settings = last_name(manifest["encoder"]), manifest["settings"]
    splits = _splits(manifest)
    licenses = [(name, count, count - published.withheld[name]) for name, count in sorted(published.licenses.items())]
    rejected = [
        (step, reason, count)
        for step, reasons in manifest.get("num_rejected", {}).items()
        for reason, count in reasons.items()
    ]
    made_by = sorted(manifest.get("thoughts", {}).get("source", {}))
    foreign = {  # words of rows and of a manifest, which may be anybody's
        "feature_shape": manifest["feature_shape"],
        "rank": settings.get("rank"),
        "num_latents": settings.get("num_latents"),
        "sources": sorted(published.sources.items()),
        "generators": [(*key, count) for key, count in sorted(published.generators.items())],
        "licenses": licenses,
        "rejected": rejected,
    }
    return render_card(
        DatasetCard,
        _metadata(repo, splits, published),
        "dataset_card",
        name=repo.partition("/")[2] or repo,
        repo=repo,
        paper=PAPER,
        citation=CITATION,
        picture=published.picture,
        how_made=[_MADE[source] for source in made_by if source in _MADE],
        num_rows=splits,
        split=next(iter(splits)),
        encoder=in_one_line(encoder),
        is_encoder_public=encoder == manifest["encoder"] and is_hub_name(encoder),
        encoder_revision=in_one_line(manifest["encoder_revision"]),
        num_withheld=published.withheld.total(),
        has_videos=bool(published.num_bytes["videos"]),
        size_features=readable_size(published.num_bytes["data"]),
        size_videos=readable_size(published.num_bytes["videos"]) if published.num_bytes["videos"] else "",
        **as_words(foreign),
    )


def _splits(manifest: dict[str, Any]) -> dict[str, int]:
    """The rows of each split that has some."""
    splits = {split: int(count) for split, count in manifest["num_rows"].items() if count}
    if not splits or (strange := [split for split in splits if not _SPLIT.fullmatch(split)]):
        raise DatasetError(
            f"Expected splits with rows and plain names in the manifest but got {strange[:1] if splits else 'none'}. Build again."
        )
    return splits


def _metadata(repo: str, splits: dict[str, int], published: Published) -> DatasetCardData:
    total = sum(splits.values())
    licenses = {*published.licenses, *published.thought_licenses}
    named: dict[str, Any] = hub_license_of_rows(licenses)
    return DatasetCardData(
        pretty_name=repo.partition("/")[2] or repo,
        tags=_TAGS,
        task_categories=["video-text-to-text"],
        size_categories=[size_category(total)],
        configs=_configs(splits, published),
        **named,
    )


def _configs(splits: dict[str, int], published: Published) -> list[dict[str, Any]]:
    """Files of each configuration. A split without a published video is not among the videos."""

    def of(folder: str) -> list[dict[str, str]]:
        present = [split for split in splits if any(name.startswith(f"{folder}/{split}-") for name in published.files)]
        return [{"split": split, "path": f"{folder}/{split}-*.parquet"} for split in present]

    features = {"config_name": "features", "data_files": of("data"), "default": True}
    videos = {"config_name": "videos", "data_files": of("videos")}
    return [features, videos] if videos["data_files"] else [features]
