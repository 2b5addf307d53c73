"""Thought videos of a data set, encoded, stored and whitened.

It reads the real video files, so that what is trained on is what a decoder gives.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from transformers import PreTrainedModel, ProcessorMixin

from storm_hf.atomic import write_json
from storm_hf.errors import DatasetError
from storm_hf.pipeline.workspace import Step, Workspace, hash_file
from storm_hf.target_trajectory.encode import ShardEncoder, feature_shape_of, hash_rows
from storm_hf.target_trajectory.fitting import TargetSettings, fit_targets
from storm_hf.target_trajectory.rank import RankReport
from storm_hf.target_trajectory.schema import DATA, MANIFEST
from storm_hf.target_trajectory.shards import shard_names
from storm_hf.thought_video import AskedExample, ThoughtExample, WorldExample


@dataclass(frozen=True)
class BuildReport:
    """Contents of a thought-video data set; `manifest.json` is the same.

    Args:
        num_rows (`dict[str, int]`):
            Rows of each split.
        feature_shape (`tuple[int, int]`):
            Cells of a temporal patch, and the size of each.
        encoder (`str`):
            Name of the backbone.
        encoder_revision (`str`):
            Hash of the weights that encoded.
        settings ([`TargetSettings`]):
            Settings of the targets, with the chosen rank.
        rank_report ([`RankReport`], *optional*):
            Report on the choice of the rank, if there was one.
        sha256 (`dict[str, str]`):
            Of every shard and of the statistics.
    """

    num_rows: dict[str, int]
    feature_shape: tuple[int, int]
    encoder: str
    encoder_revision: str
    settings: TargetSettings
    rank_report: RankReport | None
    sha256: dict[str, str]


def build_thoughts(
    folder: str | os.PathLike[str],
    splits: Mapping[str, Sequence[ThoughtExample]],
    model: PreTrainedModel,
    processor: ProcessorMixin,
    settings: TargetSettings,
    *,
    encoder: str,
    rows_per_shard: int = 512,
    batch_size: int = 32,
    on_finished: Callable[[Path], None] | None = None,
) -> BuildReport:
    """Encode the thought videos of all splits, write them as Parquet, and learn the whitening of the training split.

    A stopped build goes on with the first shard that is missing, and ends with the same bytes as one that was not stopped.

    Args:
        folder (`str` or `os.PathLike`):
            The data set to be. Paths of videos that lie in it are stored relative to it.
        splits (`Mapping[str, Sequence[ThoughtExample]]`):
            The examples of `train` and of any others. A world's come from `render_world`.
        model ([`~transformers.PreTrainedModel`]):
            Its frozen vision tower encodes.
        processor ([`~transformers.ProcessorMixin`]):
            The processor of the model.
        settings ([`TargetSettings`]):
            Settings of the targets.
        encoder (`str`):
            Name of the model, to be recorded.
        rows_per_shard (`int`, *optional*, defaults to `512`):
            Small shards lose less when a build is stopped.
        batch_size (`int`, *optional*, defaults to `32`):
            Thought videos encoded together.
        on_finished (`Callable[[Path], None]`, *optional*):
            Called once per shard when it is complete. Progress bars use it.

    Returns:
        [`BuildReport`]: What was built.

    Raises:
        DatasetError: If there is no training split, or the thought videos do not all encode to one shape.
        StaleWorkError: If the folder was begun with other examples or another encoder; the message names what differs. Other
            settings are no obstacle: the statistics are learned anew.
        VideoReadError: If a thought video cannot be read.
        BackboneError: If the backbone cannot encode videos.
    """
    if not splits.get("train"):
        raise DatasetError(f"Expected a split called train, to learn the whitening on, but got {sorted(splits)}.")
    folder = Path(folder)
    shape = feature_shape_of(model, processor, splits["train"][0])
    shard_encoder = ShardEncoder(
        folder,
        model,
        processor,
        name=encoder,
        batch_size=batch_size,
        feature_shape=shape,
        **_kinds_of(splits),
    )
    shards = _write_shards(shard_encoder, splits, rows_per_shard, on_finished)
    (folder / MANIFEST).unlink(missing_ok=True)  # until the statistics are those of these settings
    trajectory, rank_report = fit_targets([path for path in shards if path.name.startswith("train-")], settings)
    shards.append(trajectory.save(folder))
    report = BuildReport(
        num_rows={name: len(examples) for name, examples in splits.items()},
        feature_shape=shape,
        encoder=encoder,
        encoder_revision=shard_encoder.revision,
        settings=replace(settings, rank=rank_report.rank) if rank_report else settings,
        rank_report=rank_report,
        sha256={path.relative_to(folder).as_posix(): hash_file(path) for path in shards},
    )
    write_json(folder / MANIFEST, asdict(report))
    return report


def _write_shards(
    encoder: ShardEncoder,
    splits: Mapping[str, Sequence[ThoughtExample]],
    rows_per_shard: int,
    on_finished: Callable[[Path], None] | None,
) -> list[Path]:
    """Write the shards of all splits that are missing."""
    contents = {
        split: {"rows": len(examples), "sha256": hash_rows(examples, encoder.folder)}
        for split, examples in splits.items()
    }
    tasks = {
        name: [examples[row] for row in rows]
        for split, examples in splits.items()
        for name, rows in shard_names(split, len(examples), rows_per_shard).items()
    }
    parameters = {**encoder.parameters, "rows_per_shard": rows_per_shard, "splits": contents}
    return Step(DATA, encoder.write, parameters).run(Workspace(encoder.folder), tasks, on_finished)


def _kinds_of(splits: Mapping[str, Sequence[ThoughtExample]]) -> dict[str, bool]:
    """Tell which columns all rows have besides those of any."""

    def all_are(kind: type[ThoughtExample]) -> bool:
        return all(isinstance(example, kind) for examples in splits.values() for example in examples)

    return {"is_world": all_are(WorldExample), "has_wordings": all_are(AskedExample)}
