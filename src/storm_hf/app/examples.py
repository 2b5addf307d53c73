"""Example clips: episodes of the worlds that a model was trained on, rendered on the spot."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from storm_hf.pipeline.workspace import hash_file
from storm_hf.worlds import EpisodeFiles, make_world, split_seeds, write_episodes


NUM_EXAMPLES = 4


@dataclass(frozen=True)
class Examples:
    """Episodes of one world or several, as files.

    Args:
        episodes (`tuple[EpisodeFiles, ...]`):
            With clip, question and options.
    """

    episodes: tuple[EpisodeFiles, ...] = ()

    @classmethod
    def render(cls, worlds: Sequence[str], folder: Path, count: int = NUM_EXAMPLES) -> "Examples":
        """Render episodes that no training has seen.

        Args:
            worlds (`Sequence[str]`):
                Names of worlds; without any there are no examples.
            folder (`Path`):
                Output folder, with a subfolder for each world.
            count (`int`, *optional*, defaults to `4`):
                Episodes of each world.
        """
        seeds = list(split_seeds("test", count))
        return cls(
            tuple(episode for name in worlds for episode in write_episodes(make_world(name), seeds, folder / name))
        )

    def find(self, clip: Path) -> EpisodeFiles | None:
        """The example that a clip is, whatever its file is called by now; None if it is none."""
        digest = hash_file(clip)
        return next((episode for episode in self.episodes if hash_file(episode.clip_path) == digest), None)
