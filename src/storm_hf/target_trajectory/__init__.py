"""From thought videos to what the latents are aligned to: encode, pool, whiten, store."""

from storm_hf.target_trajectory.builder import BuildReport, build_thoughts
from storm_hf.target_trajectory.encode import encode_frames, encoder_revision
from storm_hf.target_trajectory.fitting import TargetSettings, fit_targets
from storm_hf.target_trajectory.pool import pool_to_trajectory
from storm_hf.target_trajectory.published import find_targets
from storm_hf.target_trajectory.rank import RankReport, choose_rank
from storm_hf.target_trajectory.schema import storm_thoughts_features
from storm_hf.target_trajectory.shards import iterate_features, load_thoughts
from storm_hf.target_trajectory.trajectory import TargetTrajectory
from storm_hf.target_trajectory.whiten import WhiteningStatistics


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
