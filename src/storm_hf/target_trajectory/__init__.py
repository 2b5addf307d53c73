"""From thought videos to what the latents are aligned to: encode, pool, whiten, store."""

from storm_hf.target_trajectory.encode import encode_frames
from storm_hf.target_trajectory.pool import pool_to_trajectory
from storm_hf.target_trajectory.trajectory import TargetTrajectory
from storm_hf.target_trajectory.whiten import WhiteningStatistics


__all__ = ["TargetTrajectory", "WhiteningStatistics", "encode_frames", "pool_to_trajectory"]
