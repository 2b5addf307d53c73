"""What makes thought videos. A generator with the right answers is the best teacher, so the first one is a simulator."""

from typing import Any, Protocol

from storm_hf.errors import DatasetError
from storm_hf.thought_video.record import ThoughtExample, ThoughtVideo, WorldExample
from storm_hf.worlds import EpisodeFiles, World


class ThoughtVideoGenerator(Protocol):
    """Shows the reasoning that leads to an answer.

    `source`, `name`, `revision` and `license` are recorded with every video it makes.
    """

    source: str
    name: str
    revision: str
    license: str

    def generate(self, example: ThoughtExample, *, seed: int) -> ThoughtVideo:
        """Make the thought video of a question.

        Args:
            example ([`ThoughtExample`]):
                The question; a thought video that it has already is not looked at.
            seed (`int`):
                The same seed makes the same video.
        """
        ...


class SimulatorGenerator:
    """A world shows its own states: a thought video without mistakes.

    Args:
        world ([`World`]):
            The world that the questions come from.
    """

    source = "simulator"
    revision = "1"
    license = "Apache-2.0"

    def __init__(self, world: World[Any]) -> None:
        self.world = world
        self.name = f"storm_hf.worlds.{world.name}"

    def generate(self, example: ThoughtExample, *, seed: int) -> ThoughtVideo:
        """Draw the thought video of an episode of this world.

        Args:
            example ([`WorldExample`]):
                An episode of this world.
            seed (`int`):
                The seed of that episode.

        Raises:
            DatasetError: If the example is not that episode.
        """
        depth = example.depth if isinstance(example, WorldExample) else None
        episode = self.world.episode(seed, depth=depth)
        if (episode.question, episode.answer) != (example.question, example.answer):
            raise DatasetError(
                f"Expected an episode of the world {self.world.name} with the seed {seed} but got the question "
                f"{example.question!r} with the answer {example.answer!r}. Give the seed that the episode was made with."
            )
        return self._record(seed, episode.fps, frames=episode.thought)

    def example(self, files: EpisodeFiles) -> WorldExample:
        """Describe an episode whose clip and thought video were rendered to files."""
        return WorldExample(
            id=files.id,
            video=files.clip_path,
            question=files.question,
            options=files.options,
            answer=files.answer,
            thought=self._record(files.seed, files.fps, path=files.thought_path),
            depth=files.depth,
            states=files.states,
            chain_of_thought=files.chain_of_thought,
            terse_chain=files.terse_chain,
            clip_caption=files.clip_caption,
            thought_caption=files.thought_caption,
        )

    def _record(self, seed: int, fps: float, **where: Any) -> ThoughtVideo:
        return ThoughtVideo(
            fps=fps,
            source=self.source,
            generator=self.name,
            generator_revision=self.revision,
            license=self.license,
            seed=seed,
            **where,
        )
