"""From thought videos to what the latents are aligned to: encode, pool, whiten, store."""

from typing import TYPE_CHECKING

from storm_hf.optional import first_use


if TYPE_CHECKING:
    from storm_hf.target_trajectory.builder import BuildReport, build_thoughts
    from storm_hf.target_trajectory.encode import encode_frames, encoder_revision
    from storm_hf.target_trajectory.fitting import TargetSettings, fit_targets
    from storm_hf.target_trajectory.pool import pool_to_trajectory
    from storm_hf.target_trajectory.rank import RankReport, choose_rank
    from storm_hf.target_trajectory.schema import storm_thoughts_features
    from storm_hf.target_trajectory.shards import find_targets, iterate_features, load_thoughts
    from storm_hf.target_trajectory.trajectory import TargetTrajectory
    from storm_hf.target_trajectory.whiten import WhiteningStatistics

_MODULE_OF = {
    "BuildReport": "storm_hf.target_trajectory.builder",
    "RankReport": "storm_hf.target_trajectory.rank",
    "TargetSettings": "storm_hf.target_trajectory.fitting",
    "TargetTrajectory": "storm_hf.target_trajectory.trajectory",
    "WhiteningStatistics": "storm_hf.target_trajectory.whiten",
    "build_thoughts": "storm_hf.target_trajectory.builder",
    "choose_rank": "storm_hf.target_trajectory.rank",
    "encode_frames": "storm_hf.target_trajectory.encode",
    "encoder_revision": "storm_hf.target_trajectory.encode",
    "find_targets": "storm_hf.target_trajectory.shards",
    "fit_targets": "storm_hf.target_trajectory.fitting",
    "iterate_features": "storm_hf.target_trajectory.shards",
    "load_thoughts": "storm_hf.target_trajectory.shards",
    "pool_to_trajectory": "storm_hf.target_trajectory.pool",
    "storm_thoughts_features": "storm_hf.target_trajectory.schema",
}

__all__ = [
    "BuildReport",
    "RankReport",
    "TargetSettings",
    "TargetTrajectory",
    "WhiteningStatistics",
    "build_thoughts",
    "choose_rank",
    "encode_frames",
    "encoder_revision",
    "find_targets",
    "fit_targets",
    "iterate_features",
    "load_thoughts",
    "pool_to_trajectory",
    "storm_thoughts_features",
]

__getattr__ = first_use(__name__, _MODULE_OF)
