from pathlib import Path
from typing import Any

import pytest
from tests.diagnostics.thinker import NUM_LATENTS, WORLD, Thinker

from storm_hf.target_trajectory import TargetTrajectory, encode_frames
from storm_hf.video import read_video
from storm_hf.worlds import write_episodes


@pytest.fixture(scope="session")
def thought_rows(thinker: Thinker, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Thirty rows of a data set of thoughts, with the features that a random vision tower sees."""
    folder: Path = tmp_path_factory.mktemp("thoughts")
    episodes = write_episodes(WORLD, range(30), folder)
    films = [read_video(episode.thought_path).frames for episode in episodes]
    features = encode_frames(thinker.model, thinker.processor, films, fps=2.0)
    return [
        {
            "video": str(episode.clip_path),
            "question": episode.question,
            "options": list(episode.options),
            "answer": episode.answer,
            "states": list(episode.states),
            "thought_video": str(episode.thought_path),
            "thought_features": seen,
        }
        for episode, seen in zip(episodes, features, strict=True)
    ]


@pytest.fixture(scope="session")
def trajectory(thought_rows: list[dict[str, Any]]) -> TargetTrajectory:
    """Targets that keep where things are."""
    features = [row["thought_features"] for row in thought_rows]
    return TargetTrajectory.fit([features], num_latents=NUM_LATENTS, rank=16, layout="concat")
