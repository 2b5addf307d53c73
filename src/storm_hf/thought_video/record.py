"""A thought video with where it comes from, and the question it reasons about.

Axes: T frames, H height, W width.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from storm_hf.errors import DatasetError, VideoReadError
from storm_hf.inputs.wording import QuestionStyle
from storm_hf.thought_video.clip_part import frame_times, is_before
from storm_hf.video import read_video


@dataclass(frozen=True, kw_only=True, eq=False)
class ThoughtVideo:
    """A clip that shows the reasoning: in memory or in a file.

    Args:
        fps (`float`):
            Frames shown per second.
        source (`str`):
            Kind of generator: `simulator`, `rendered_chain` (a written chain drawn as text), `evidence` (the clip's own moments),
            `future` (its continuation), `segments` (parts of a film in their true order), or the family of a model.
        generator (`str`):
            Name of what made it.
        generator_revision (`str`):
            Its version.
        license (`str`):
            Licence of the video.
        seed (`int`):
            Seed of the generator.
        prompt (`str`, *optional*, defaults to `""`):
            Prompt of the generator; of `rendered_chain` the drawn text.
        frames (`np.ndarray` of shape `(num_frames, height, width, 3)`, *optional*):
            RGB, `uint8`.
        path (`Path`, *optional*):
            The file, if there is one. Of frames and path exactly one is given.
        seen_until_seconds (`float`, *optional*):
            The moment of the question's clip from which on the question may not see it, because the thought video shows or
            imagines what comes then. `question_clip` cuts the clip there, and a [`ThoughtExample`] refuses one that goes on.
            None where the question sees its whole clip.
        seen_from_seconds (`float`, *optional*, defaults to `0.0`):
            The moment of that clip where the part begins that the question is about, and so the cut clip.
    """

    fps: float
    source: str
    generator: str
    generator_revision: str
    license: str
    seed: int
    prompt: str = ""
    frames: np.ndarray | None = None
    path: Path | None = None
    seen_until_seconds: float | None = None
    seen_from_seconds: float = 0.0

    def __post_init__(self) -> None:
        if (self.frames is None) == (self.path is None):
            given = "neither" if self.frames is None else "both"
            raise DatasetError(f"Expected a thought video as frames or as the path of a file but got {given}.")

    def read(self) -> np.ndarray:
        """All its frames (num_frames, height, width, 3), decoded if they lie in a file.

        Raises:
            VideoReadError: If the file cannot be read.
        """
        if self.path is None:
            assert self.frames is not None  # one of the two is there
            return self.frames
        return read_video(self.path).frames

    def in_memory(self) -> "ThoughtVideo":
        """The same video with its frames decoded, so that several readers decode once.

        Raises:
            VideoReadError: If the file cannot be read.
        """
        return self if self.path is None else replace(self, frames=self.read(), path=None)


@dataclass(frozen=True)
class Rejected:
    """A generator cannot show this question. That is how data is, and no error.

    Args:
        reason (`str`):
            A kind of few words, a colon, and what happened: `"too short: clip.mp4 ends 0.5 s after …"`. Kinds are counted.
        timeout_seconds (`float`, *optional*):
            Time that reading had, where that was not enough: with more, the question may be shown.
    """

    reason: str
    timeout_seconds: float | None = None

    @classmethod
    def of(cls, error: VideoReadError) -> "Rejected":
        """Reject a question because a clip cannot be read."""
        return cls(f"unreadable: {error}", getattr(error, "timeout_seconds", None))

    @property
    def kind(self) -> str:
        """Kind of the reason: the text before its colon."""
        return self.reason.partition(":")[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class ThoughtExample:
    """A question about a video, and the thought video that leads to its answer.

    Args:
        id (`str`):
            Unique in its data set.
        video (`Path`):
            The clip that the question is about, as models see it: cut where the question may not see further.
        question (`str`):
            In words.
        options (`tuple[str, ...]`):
            The closed set of answers; empty where the question is open.
        answer (`str`):
            The correct one.
        thought ([`ThoughtVideo`]):
            The reasoning. Training sees it, inference never does.
        clip_source (`str`, *optional*, defaults to `"unknown"`):
            Name of the collection that the clip comes from.
        clip_license (`str`, *optional*, defaults to `"unknown"`):
            Licence of the clip. A clip whose licence is unknown is not published.
        clip_file (`str`, *optional*, defaults to `""`):
            Name of the clip's file in the collection.

    Raises:
        DatasetError: If the clip shows what only the thought video may show.
        VideoReadError: If the clip must be checked for that and cannot be read.
    """

    id: str
    video: Path
    question: str
    options: tuple[str, ...]
    answer: str
    thought: ThoughtVideo
    clip_source: str = "unknown"
    clip_license: str = "unknown"
    clip_file: str = ""

    def __post_init__(self) -> None:
        until = self.thought.seen_until_seconds
        if until is None:
            return
        until -= self.thought.seen_from_seconds
        if not is_before(last := frame_times(self.video)[-1], until):
            raise DatasetError(
                f"Expected a clip of the question {self.id!r} that ends before {until:.3f} s, where its thought video begins, "
                f"but {self.video} shows a frame at {last:.3f} s. Use the clip that `question_clip` cuts."
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class WorldExample(ThoughtExample):
    """An example whose simulator knows more: how deep the question is, and the reasoning in words.

    Args:
        depth (`int`):
            Number of state updates that the answer needs.
        states (`tuple[str, ...]`):
            State after each step, one word each.
        chain_of_thought (`str`):
            The reasoning in sentences.
        terse_chain (`str`):
            The reasoning in the fewest words.
        clip_caption (`str`):
            Caption of the clip, step by step.
        thought_caption (`str`):
            Caption of the thought video, step by step.
    """

    depth: int
    states: tuple[str, ...]
    chain_of_thought: str
    terse_chain: str
    clip_caption: str
    thought_caption: str


@dataclass(frozen=True, kw_only=True, eq=False)
class AskedExample(WorldExample):
    """An example whose question is complete, options and form of the reply included; see [`~storm_hf.worlds.Asked`].

    Args:
        usual_question (`str`):
            The same question in the usual wording.
        choices (`tuple[str, ...]`):
            The closed set of answers, in the order in which the question lists it.
        choice_style (`str`):
            Form of the choices in the question: `none`, `words` or `letters`.
        outcome (`str`):
            The correct one of them, where `answer` may be a sentence or a letter.
        spoken_chain (`str`):
            The reasoning in sentences as a language model would write it, where `chain_of_thought` has the words of a small vocabulary.
    """

    usual_question: str
    choices: tuple[str, ...]
    choice_style: QuestionStyle
    outcome: str
    spoken_chain: str
