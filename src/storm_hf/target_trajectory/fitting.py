"""Statistics of a data set of thoughts, from its shards."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from storm_hf.settings import PositiveInt, check_values
from storm_hf.target_trajectory.pool import Layout, Pooling, pool_clips
from storm_hf.target_trajectory.rank import RankReport, choose_rank
from storm_hf.target_trajectory.shards import iterate_features, read_shard
from storm_hf.target_trajectory.trajectory import TargetTrajectory
from storm_hf.target_trajectory.whiten import SlotStatistics


_NUM_PROBED = 4096  # clips that choose a rank


@dataclass(frozen=True)
class TargetSettings:
    """Settings that turn the thought features of a data set into target trajectories.

    Args:
        num_latents (`int`):
            Number K of latent steps.
        rank (`int` or `"auto"`, *optional*, defaults to `"auto"`):
            Principal components to keep. `auto` lets `choose_rank` decide, by a probe where the states are known: of the whole state, or,
            where there are more states than clips, of each of its characters.
        pooling (`str`, *optional*, defaults to `"temporal"`):
            See [`pool_to_trajectory`].
        layout (`str`, *optional*, defaults to `"average"`):
            See [`pool_to_trajectory`].
        statistics (`str`, *optional*, defaults to `"pooled"`):
            See [`WhiteningStatistics.fit`].
        seed (`int`, *optional*, defaults to `0`):
            See [`WhiteningStatistics.fit`].

    Raises:
        ConfigurationError: If a value is of another type or out of its range.
    """

    num_latents: PositiveInt
    rank: PositiveInt | Literal["auto"] = "auto"
    pooling: Pooling = "temporal"
    layout: Layout = "average"
    statistics: SlotStatistics = "pooled"
    seed: int = 0

    def __post_init__(self) -> None:
        check_values(self)


def fit_targets(shards: Sequence[Path], settings: TargetSettings) -> tuple[TargetTrajectory, RankReport | None]:
    """Learn how the thought features of a training split become targets, choosing the rank first if that is left open.

    Args:
        shards (`Sequence[Path]`):
            Parquet files of the training split. They are read one at a time, twice if the rank is to be chosen.
        settings ([`TargetSettings`]):
            Settings of the targets.

    Returns:
        `tuple[TargetTrajectory, RankReport | None]`: The targets, and how their rank was chosen, if it was.

    Raises:
        LatentError: If the settings do not fit the features.
    """
    report = _choose_rank(shards, settings) if settings.rank == "auto" else None
    trajectory = TargetTrajectory.fit(
        _features(shards),
        num_latents=settings.num_latents,
        rank=report.rank if report else int(settings.rank),
        pooling=settings.pooling,
        layout=settings.layout,
        statistics=settings.statistics,
        seed=settings.seed,
    )
    return trajectory, report


def _choose_rank(shards: Sequence[Path], settings: TargetSettings) -> RankReport:
    """Choose a rank on the first clips of the training split, by their states if there is one per slot."""
    clips = list(islice((clip for batch in _features(shards) for clip in batch), _NUM_PROBED))
    pooled = pool_clips(clips, settings.num_latents, pooling=settings.pooling, layout=settings.layout)
    labels = _labels(list(islice(_states(shards), _NUM_PROBED)), len(clips), settings.num_latents)
    return choose_rank(pooled, labels, statistics=settings.statistics, hidden_size=clips[0].shape[-1])


def _labels(states: Sequence[Sequence[str]], num_clips: int, num_latents: int) -> np.ndarray | None:
    """The states as a probe can learn them: whole, or, where there are more of them than clips, character by character."""
    if len(states) != num_clips or any(len(of_clip) != num_latents for of_clip in states):
        return None
    table = np.asarray(states)
    if len(np.unique(table)) <= num_clips:
        return table
    has_characters = len({len(state) for state in table.flat}) == 1
    return np.asarray([[list(state) for state in of_clip] for of_clip in states]) if has_characters else None


def _features(shards: Sequence[Path]) -> Iterator[list[np.ndarray]]:
    for shard in shards:
        yield from iterate_features(read_shard(shard))


def _states(shards: Sequence[Path]) -> Iterator[list[str]]:
    for shard in shards:
        dataset = read_shard(shard)
        if "states" in dataset.column_names:
            yield from dataset["states"]
