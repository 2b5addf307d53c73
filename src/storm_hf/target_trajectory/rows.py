"""From an example to the words of its row: everything but what an encoder adds."""

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from storm_hf.pipeline.paths import relative_to
from storm_hf.target_trajectory.schema import CLIP_COLUMNS
from storm_hf.thought_video import ThoughtExample, WorldExample


def row_of(example: ThoughtExample, folder: Path) -> dict[str, Any]:
    """Describe an example by the columns of `storm_thoughts_features`, without those that an encoder fills.

    Args:
        example ([`ThoughtExample`]):
            A world's example gets the columns of a world.
        folder (`Path`):
            The data set: paths of videos that lie in it become relative to it.
    """
    thought = example.thought
    row: dict[str, Any] = {
        "id": example.id,
        "video": relative_to(example.video, folder),
        "question": example.question,
        "options": list(example.options),
        "answer": example.answer,
        "thought_fps": thought.fps,
        "thought_source": thought.source,
        "thought_prompt": thought.prompt,
        "thought_video": None if thought.path is None else relative_to(thought.path, folder),
        "seed": thought.seed,
        "generator": thought.generator,
        "generator_revision": thought.generator_revision,
        "license": thought.license,
    }
    if isinstance(example, WorldExample):
        names = ("depth", "chain_of_thought", "terse_chain", "clip_caption", "thought_caption")
        row |= {name: getattr(example, name) for name in names}
        row["states"] = list(example.states)
    else:
        row |= {name: getattr(example, name) for name in CLIP_COLUMNS}
    return row


def hash_rows(examples: Sequence[ThoughtExample], folder: Path) -> str:
    """Hash the rows of a split, to notice when they are others."""
    digest = sha256()
    for example in examples:
        digest.update(json.dumps(row_of(example, folder), sort_keys=True).encode())
    return digest.hexdigest()
