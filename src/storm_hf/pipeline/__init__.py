"""Resumable work: steps over small shards, in folders that know what their contents were made with."""

from storm_hf.pipeline.fingerprint import claim
from storm_hf.pipeline.step import Step
from storm_hf.pipeline.workspace import Workspace


__all__ = ["Step", "Workspace", "claim"]
