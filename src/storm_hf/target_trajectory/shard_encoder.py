"""Examples of one shard through the frozen vision tower, into one Parquet file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, ProcessorMixin

from storm_hf.target_trajectory.encode import encode_frames, encoder_revision
from storm_hf.target_trajectory.rows import row_of
from storm_hf.target_trajectory.schema import CLIP_COLUMNS, FEATURES_COLUMN, storm_thoughts_features
from storm_hf.target_trajectory.shards import write_shard
from storm_hf.thought_video import ThoughtExample


@dataclass(frozen=True, eq=False)
class ShardEncoder:
    """Turns examples into shards. The rows of one shard at a time are in memory.

    Args:
        folder (`Path`):
            The data set: paths of videos that lie in it are stored relative to it.
        model ([`~transformers.PreTrainedModel`]):
            Its frozen vision tower encodes, in the dtype and on the device that it has.
        processor ([`~transformers.ProcessorMixin`]):
            The processor of the model.
        name (`str`):
            Name of the model, to be recorded.
        batch_size (`int`, *optional*, defaults to `32`):
            Thought videos encoded together.
        is_world (`bool`, *optional*, defaults to `False`):
            Whether all examples are a world's.
        keeps_thoughts (`bool`, *optional*, defaults to `True`):
            Whether rows name the files of their thought videos.
        feature_shape (`tuple[int, int]`, *optional*):
            Cells of a temporal patch and size of each that all shards have; by default those of the first row of each.
    """

    folder: Path
    model: PreTrainedModel
    processor: ProcessorMixin
    name: str
    batch_size: int = 32
    is_world: bool = False
    keeps_thoughts: bool = True
    feature_shape: tuple[int, int] | None = None

    @cached_property
    def revision(self) -> str:
        """Hash of the weights that encode."""
        return encoder_revision(self.model)

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters besides the examples that determine the rows."""
        video_processor = json.loads(self.processor.video_processor.to_json_string())
        parameters = {"encoder": self.name, "encoder_revision": self.revision, "video_processor": video_processor}
        return parameters if self.is_world else {**parameters, "provenance": list(CLIP_COLUMNS)}

    def write(self, examples: Sequence[ThoughtExample], path: Path) -> None:
        """Encode the thought videos of some examples and write their rows.

        Args:
            examples (`Sequence[ThoughtExample]`):
                At least one. Their thought videos have one resolution.
            path (`Path`):
                Output path. The caller renames it once it is complete.

        Raises:
            DatasetError: If the thought videos do not all encode to one shape.
            VideoReadError: If a thought video cannot be read.
            BackboneError: If the backbone cannot encode videos.
        """
        features: list[np.ndarray] = []
        for fps, alike in groupby(examples, key=lambda example: example.thought.fps):
            clips = (example.thought.read() for example in alike)
            features += encode_frames(self.model, self.processor, clips, fps=fps, batch_size=self.batch_size)
        rows = [
            {**self._words(example), FEATURES_COLUMN: encoded}
            for example, encoded in zip(examples, features, strict=True)
        ]
        num_cells, hidden_size = self.feature_shape or features[0].shape[1:]
        write_shard(path, rows, storm_thoughts_features(hidden_size, num_cells, is_world=self.is_world))

    def _words(self, example: ThoughtExample) -> dict[str, Any]:
        row = row_of(example, self.folder) | {"encoder": self.name, "encoder_revision": self.revision}
        return row if self.keeps_thoughts else row | {"thought_video": None}


def feature_shape_of(model: PreTrainedModel, processor: ProcessorMixin, example: ThoughtExample) -> tuple[int, int]:
    """Cells of a temporal patch, and the size of each, that the thought video of an example has once it is encoded."""
    thought = example.thought
    num_cells, size = encode_frames(model, processor, [thought.read()], fps=thought.fps)[0].shape[1:]
    return num_cells, size
