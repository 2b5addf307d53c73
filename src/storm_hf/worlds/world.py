"""Interface of a synthetic task (world): generate an episode, render it, and compute the outcome from another state.

An episode is a pure function of the world's knobs, the seed and (where asked for) the depth. A world draws a *plan*,
the facts of one episode, and everything else (pictures, words, counterfactuals) is read off the plan.
No picture holds an absolute clock: a model that can read the time of a frame does not generalise to longer videos.

Axes: T frames, H height, W width, in pixels before enlargement; K steps.
"""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar, Generic, Literal, TypeVar

import numpy as np

from storm_hf.errors import ConfigurationError
from storm_hf.inputs.wording import NUMBER_WORDS
from storm_hf.worlds.episode import Episode, EpisodeText, SpokenChain
from storm_hf.worlds.render import enlarge, shrink


@dataclass(frozen=True)
class Training:
    """One training run of the demo.

    Args:
        num_updates (`int`):
            Optimizer updates.
        learning_rate (`float`, *optional*, defaults to `1e-3`):
            Its peak; it rises over the first updates and falls along a cosine.
    """

    num_updates: int
    learning_rate: float = 1e-3


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """Clips, targets and trainings of a world in `storm demo`.

    Args:
        task (`str`):
            Description of the clips and of the question.
        depth_unit (`str`):
            Unit of depth, in the plural.
        knobs (`Mapping[str, int]`):
            Knobs of the world. Its steps are as many as the model has latents.
        test_depths (`Mapping[int, int]`):
            Test clips of each depth.
        deep (`tuple[int, ...]`):
            Depths of the clips that variants and interventions are tested on.
        whitening_rank (`int`, *optional*):
            Principal components of the targets. `None` lets a probe of the states choose the fewest that hold them.
        trainings (`Mapping[str, Training]`):
            `base`, `align`, `answer`, `direct`, `chain_of_thought` and `terse_chain`.
        target_layout (`str`, *optional*, defaults to `"average"`):
            Spatial layout of the target of a thought frame: the average over space, or all cells, `"concat"`.
        teacher_noise (`float`, *optional*, defaults to `0.0`):
            Noise on the targets that Stage I feeds; see [`StormAlignConfig`].
        bottleneck_share (`float`, *optional*, defaults to `0.0`):
            Share of rows whose answer learns of the clip through the latents alone; see [`StormTrainingConfig`].
        latent_scale (`float`, *optional*, defaults to `1.0`):
            Factor between a latent and what is fed; see [`StormConfig`].
        rope_theta (`float`, *optional*, defaults to `1e4`):
            Base of the backbone's rotary frequencies; see [`~storm_hf.demo.backbone.tiny_config`].
        num_train (`int`, *optional*, defaults to `3000`):
            Clips trained on.
    """

    task: str
    depth_unit: str
    knobs: Mapping[str, int]
    test_depths: Mapping[int, int]
    deep: tuple[int, ...]
    whitening_rank: int | None
    trainings: Mapping[str, Training]
    target_layout: Literal["average", "concat"] = "average"
    teacher_noise: float = 0.0
    bottleneck_share: float = 0.0
    latent_scale: float = 1.0
    rope_theta: float = 1e4
    num_train: int = 3000


_CHAIN_STREAM = zlib.crc32(b"chain of thought in sentences")  # so that it is drawn apart from the episode
FPS = 2.0  # two frames are a step, a second, and one temporal patch of Qwen-VL

PlanT = TypeVar("PlanT")


class World(ABC, Generic[PlanT]):
    """A simulator with a question. Subclasses are frozen dataclasses whose fields are the knobs."""

    name: ClassVar[str]
    demo: ClassVar[DemoSettings]
    question_wordings: ClassVar[tuple[str, ...]]  # the first is the usual one; the last third is held out of training
    answer_sentences: ClassVar[tuple[str, ...]]
    num_steps: int

    @property
    @abstractmethod
    def options(self) -> tuple[str, ...]:
        """The closed set of answers, one word each."""

    @property
    @abstractmethod
    def state_names(self) -> Collection[str]:
        """Every state that a step can end in, one word each. Where there are too many to list, it only knows its members."""

    @property
    @abstractmethod
    def depths(self) -> range:
        """The depths that can be asked for."""

    @property
    @abstractmethod
    def vocabulary(self) -> tuple[str, ...]:
        """Every word and punctuation mark that a text of this world can use, sorted."""

    @property
    @abstractmethod
    def frame_size(self) -> tuple[int, int]:
        """Height and width of a frame, in pixels before enlargement."""

    @property
    def trained_wordings(self) -> tuple[str, ...]:
        """The wordings of the question that a model is trained on, the usual one first."""
        return self.question_wordings[: -len(self.question_wordings) // 3]

    @property
    def held_out_wordings(self) -> tuple[str, ...]:
        """The wordings of the question that no model is trained on."""
        return self.question_wordings[len(self.trained_wordings) :]

    @property
    def chance(self) -> float:
        """Accuracy of guessing: every option is correct equally often."""
        return 1 / len(self.options)

    def episode(self, seed: int, *, depth: int | None = None) -> Episode:
        """Make an episode with its two videos.

        Args:
            seed (`int`):
                0 or more. `split_seeds` gives disjoint ones for training and testing.
            depth (`int`, *optional*):
                One of `depths`. Left out, it is drawn from the range that the knobs name.

        Returns:
            [`Episode`]: The same one for the same arguments, in every process.

        Raises:
            ConfigurationError: If the seed is negative or this world has no such depth.
        """
        plan = self._plan(seed, depth)
        clip, thought = enlarge(self._draw_clip(plan)), enlarge(self._draw_thought(plan))
        return Episode(**vars(self._text(seed, plan)), clip=clip, thought=thought)

    def describe(self, seed: int, *, depth: int | None = None) -> EpisodeText:
        """Tell an episode without drawing it: the same words as `episode`, a hundred times faster."""
        return self._text(seed, self._plan(seed, depth))

    def say(self, wording: str, episode: EpisodeText, **blanks: str) -> str:
        """Fill the blanks of a wording with what an episode asks for, such as a number of steps.

        Args:
            wording (`str`):
                One of `question_wordings` or `answer_sentences`.
            episode (`EpisodeText`):
                Episode of this world.
            blanks (`str`):
                Words for further blanks: an `answer_sentence` has `answer`.
        """
        return wording.format(**self._blanks(episode), **blanks)

    def say_chain(self, episode: EpisodeText, seed: int) -> str:
        """Write the reasoning as a language model would, one sentence a step; the last one leads to the answer.

        Args:
            episode (`EpisodeText`):
                Episode of this world.
            seed (`int`):
                Seed of the wording, 0 or more. Every wording names what each step changes and the state after it.
        """
        plan = self._plan(episode.seed, episode.depth)
        return self._say_chain(plan, self._states(plan)).draw(np.random.default_rng([seed, _CHAIN_STREAM]))

    def counterfactual(self, episode: EpisodeText | int, step: int, state: str, *, depth: int | None = None) -> str:
        """Answer as if the state after a step had been another and the clip had continued as it did.

        Args:
            episode (`EpisodeText` or `int`):
                The episode, or its seed.
            step (`int`):
                Step whose outcome is replaced, counted from 1.
            state (`str`):
                One of `state_names`.
            depth (`int`, *optional*):
                As given to `episode`; taken from the episode where that is passed.

        Returns:
            `str`: One of `options`. The true answer, if the state is the true one.

        Raises:
            ConfigurationError: If there is no such step or state.
        """
        if not 1 <= step <= self.num_steps:
            raise ConfigurationError(f"Expected a step from 1 to {self.num_steps} but got {step}.")
        if state not in self.state_names:
            raise ConfigurationError(f"Expected a state of {self.name} ({self._describe_states()}) but got {state!r}.")
        seed = episode if isinstance(episode, int) else episode.seed
        plan = self._plan(seed, depth if isinstance(episode, int) else episode.depth)
        states = [*self._states(plan)[: step - 1], state]
        for later in range(step, self.num_steps):
            states.append(self._advance(plan, later, states[-1]))
        return self._answer(plan, states)

    def read_frame(self, frame: np.ndarray) -> str:
        """Read the state off a frame of a thought video: what the world drew, read by the world.

        The frame may be blurred or drawn by a model: the state whose picture is nearest is named.

        Args:
            frame (`np.ndarray` of shape `(height, width, 3)`):
                The second frame of a pair, `uint8`, of the size before enlargement or a multiple of it.

        Returns:
            `str`: One of `state_names`.

        Raises:
            ConfigurationError: If the frame has another shape.
        """
        return self._read_frame(shrink(frame, *self.frame_size))

    @abstractmethod
    def _read_frame(self, frame: np.ndarray) -> str:
        """Name the state whose picture is nearest to a small frame (H, W, 3) of `float32`."""

    @abstractmethod
    def _draw_plan(self, generator: np.random.Generator, depth: int | None) -> PlanT:
        """Draw the facts of an episode. A depth that is given takes the place of the drawn one, and of nothing else."""

    @abstractmethod
    def _start(self, plan: PlanT) -> str:
        """State before the first step."""

    @abstractmethod
    def _advance(self, plan: PlanT, step: int, state: str) -> str:
        """State after a step (counted from 0), given the state before it."""

    @abstractmethod
    def _answer(self, plan: PlanT, states: list[str]) -> str:
        """Read the answer off the states after each step."""

    @abstractmethod
    def _words(self, plan: PlanT, states: list[str]) -> "Words":
        """Say the plan: question, captions and chains."""

    @abstractmethod
    def _say_chain(self, plan: PlanT, states: list[str]) -> SpokenChain:
        """Say the reasoning in sentences."""

    def _blanks(self, episode: EpisodeText) -> Mapping[str, str]:
        """Give the words for the blanks of wordings, by their names."""
        return {}

    @abstractmethod
    def _draw_clip(self, plan: PlanT) -> np.ndarray:
        """Draw what the model sees, small."""

    @abstractmethod
    def _draw_thought(self, plan: PlanT) -> np.ndarray:
        """Draw the reasoning, small, two frames a step."""

    def _describe_states(self) -> str:
        return ", ".join(self.state_names)

    def _plan(self, seed: int, depth: int | None) -> PlanT:
        if seed < 0:
            raise ConfigurationError(f"Expected a seed of 0 or more but got {seed}.")
        if depth is not None and depth not in self.depths:
            raise ConfigurationError(
                f"Expected a depth from {self.depths[0]} to {self.depths[-1]} in the world {self.name} but got {depth}."
            )
        world_id = zlib.crc32(self.name.encode())  # so that two worlds draw differently from one seed
        return self._draw_plan(np.random.default_rng([seed, world_id]), depth)

    def _states(self, plan: PlanT) -> list[str]:
        states = [self._start(plan)]
        for step in range(self.num_steps):
            states.append(self._advance(plan, step, states[-1]))
        return states[1:]  # K

    def _text(self, seed: int, plan: PlanT) -> EpisodeText:
        states = self._states(plan)
        return EpisodeText(
            world=self.name,
            seed=seed,
            fps=FPS,
            options=self.options,
            answer=self._answer(plan, states),
            states=tuple(states),
            **vars(self._words(plan, states)),
        )


@dataclass(frozen=True)
class Words:
    """Text of an episode; the fields are those of `EpisodeText`."""

    question: str
    depth: int
    clip_caption: str
    thought_caption: str
    chain_of_thought: str
    terse_chain: str


def check_knob(world: str, knob: str, value: float, lowest: int, highest: int) -> None:
    """Make sure that a knob is a whole number in its range.

    Raises:
        ConfigurationError: If it is not.
    """
    if not lowest <= value <= highest or value != int(value):
        raise ConfigurationError(
            f"Expected {knob} from {lowest} to {highest}, whole, in the world {world} but got {value:g}."
        )


def check_num_steps(world: str, num_steps: int) -> None:
    """Make sure that the steps can be counted in words.

    Raises:
        ConfigurationError: If they cannot.
    """
    check_knob(world, "num_steps", num_steps, 1, len(NUMBER_WORDS) - 1)
