"""Resumable pipelines: steps over small shards, in folders with a fingerprint of their parameters."""

from storm_hf.pipeline.lock import locked
from storm_hf.pipeline.workspace import Step, Workspace, claim, read_fingerprint


__all__ = ["Step", "Workspace", "claim", "locked", "read_fingerprint"]
