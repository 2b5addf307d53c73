"""Thought-video generators. The simulator is the first: its thoughts are correct."""

import re
from dataclasses import replace
from typing import Any, Protocol

from storm_hf.annotations.record import Annotation
from storm_hf.thought_video.record import Rejected, ThoughtVideo, WorldExample
from storm_hf.video import write_video
from storm_hf.worlds import Episode, EpisodeFiles, World, ask
from storm_hf.worlds.asking import Wordings
from storm_hf.worlds.render import check_canvas, on_canvas


class ThoughtVideoGenerator(Protocol):
    """Shows the reasoning that leads to an answer.

    `source`, `name`, `revision` and `license` are recorded with every video it makes.
    """

    @property
    def source(self) -> str:
        """Its kind: `simulator`, `rendered_chain`, `evidence`, `future`, `segments`, `folder`, or the family of a
        model.
        """
        ...

    @property
    def name(self) -> str:
        """The model or the module."""
        ...

    @property
    def revision(self) -> str:
        """Version of the model or the module."""
        ...

    @property
    def license(self) -> str:
        """Licence of its videos, unless a video has its own."""
        ...

    def generate(self, annotation: Annotation, *, prompt: str, seed: int) -> ThoughtVideo | Rejected:
        """Make the thought video of a question.

        Args:
            annotation ([`Annotation`]):
                The question with its answer.
            prompt (`str`):
                Text prompt of the video; generators that do not read ignore it.
            seed (`int`):
                The same annotation, prompt and seed make the same video.

        Returns:
            [`ThoughtVideo`], or [`Rejected`] where this question cannot be shown: its clip is broken or too short.
        """
        ...


class ClipWriter(Protocol):
    """Draws the clip of a question, where questions are made together with their clips."""

    def write_clip(self, annotation: Annotation, seed: int) -> Rejected | None:
        """Write the clip of a question to the path that the annotation names.

        Args:
            annotation ([`Annotation`]):
                The question.
            seed (`int`):
                Seed that it was drawn from.

        Returns:
            [`Rejected`], *optional*: The reason where no clip could be written.
        """
        ...


class SimulatorGenerator:
    """A world shows its own states: a thought video without mistakes.

    Args:
        world ([`World`]):
            The world that the questions come from.
        canvas (`tuple[int, int]`, *optional*):
            Height and width that frames are padded to, in pixels before enlargement.
        wordings (`str`, *optional*, defaults to `"usual"`):
            Wordings of the questions; see [`~storm_hf.worlds.ask`].

    Raises:
        ConfigurationError: If the frames of the world do not fit on the canvas.
    """

    source = "simulator"
    revision = "1"
    license = "Apache-2.0"

    def __init__(self, world: World[Any], canvas: tuple[int, int] | None = None, wordings: Wordings = "usual") -> None:
        if canvas is not None:
            check_canvas(world.frame_size, canvas)
        self.world = world
        self.canvas = canvas
        self.wordings = wordings
        self.name = f"storm_hf.worlds.{world.name}"

    def generate(self, annotation: Annotation, *, prompt: str = "", seed: int) -> ThoughtVideo | Rejected:
        """Draw the thought video of an episode of this world.

        Args:
            annotation ([`Annotation`]):
                The question of an episode, under the id that its files have: `shuffle-000000017-d5` says seed and depth.
            prompt (`str`, *optional*, defaults to `""`):
                Not looked at: the world knows what happens.
            seed (`int`):
                Seed of the episode where the id is another one; the world then draws the depth.

        Returns:
            [`ThoughtVideo`] with its frames in memory, or [`Rejected`] where the episode has another question or answer.
        """
        seed, depth = self._episode_of(annotation.id) or (seed, None)
        episode = self.episode(seed, depth)
        asked = ask(self.world, episode, seed, self.wordings)
        if (asked.question, asked.answer) != (annotation.question, annotation.answer):
            return Rejected(
                f"other episode: the world {self.world.name} with the seed {seed} asks {asked.question!r}, answered "
                f"{asked.answer!r}, but the annotation {annotation.id!r} asks {annotation.question!r}, answered "
                f"{annotation.answer!r}"
            )
        return self._record(seed, episode.fps, frames=episode.thought)

    def write_clip(self, annotation: Annotation, seed: int) -> None:
        """Draw the clip of an episode; arguments as those of `generate`."""
        seed, depth = self._episode_of(annotation.id) or (seed, None)
        episode = self.episode(seed, depth)
        write_video(annotation.video, episode.clip, fps=episode.fps)

    def episode(self, seed: int, depth: int | None = None) -> Episode:
        """Draw an episode on the canvas.

        Args:
            seed (`int`):
                Seed of the episode.
            depth (`int`, *optional*):
                Its depth. By default the world draws one.
        """
        drawn = self.world.episode(seed, depth=depth)
        if self.canvas is None:
            return drawn
        return replace(drawn, clip=on_canvas(drawn.clip, self.canvas), thought=on_canvas(drawn.thought, self.canvas))

    def example(self, files: EpisodeFiles) -> WorldExample:
        """Describe an episode whose clip and thought video were rendered to files, in the usual wording."""
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

    def _episode_of(self, name: str) -> tuple[int, int | None] | None:
        """Seed and depth in an id of this world."""
        match = re.fullmatch(rf"{re.escape(self.world.name)}-(\d+)(?:-d(\d+))?", name)
        return (int(match[1]), int(match[2]) if match[2] else None) if match else None

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
