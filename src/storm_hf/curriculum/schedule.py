"""The plan of a run: its stages in order, with their numbers of latents and of written steps that latents replace.

Each stage goes on from the checkpoint of the one before it.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from storm_hf.errors import ConfigurationError
from storm_hf.settings import (
    NonEmptyStr,
    NonNegativeInt,
    PositiveInt,
    check_names,
    check_value,
    check_values,
    make_settings,
)


StageKind = Literal["base", "align", "answer", "grpo"]


@dataclass(frozen=True)
class CurriculumStage:
    """One training of a curriculum.

    Args:
        kind (`str`):
            `"base"` (a random backbone learns to see), `"align"` (Stage I), `"answer"` (Stage II, or text alone with
            `num_latents=0`) or `"grpo"` (reinforcement).
        num_latents (`int`, *optional*):
            Number K of latent steps. By default what the checkpoint has.
        num_replaced (`int`, *optional*):
            Steps at the beginning of a row's written chain of thought that latents stand for: they are left out, and the
            rest of the chain is part of the answer. By default nothing of the chain is written.

    Raises:
        ConfigurationError: If these do not go together.
    """

    kind: StageKind
    num_latents: NonNegativeInt | None = None
    num_replaced: NonNegativeInt | None = None

    def __post_init__(self) -> None:
        check_values(self)
        if self.kind == "base" and self.num_latents:
            raise ConfigurationError(
                f"A base stage learns to see and has no latents, got `num_latents: {self.num_latents}`. Leave it out."
            )
        if self.kind in ("align", "grpo") and self.num_latents == 0:
            raise ConfigurationError(
                f"A stage of the kind {self.kind} needs `num_latents` of 1 or more, got 0. Make it an answer stage."
            )
        if self.kind != "answer" and self.num_replaced is not None:
            raise ConfigurationError(
                f"Only an answer stage writes a chain of thought, but `num_replaced: {self.num_replaced}` was given to a "
                f"stage of the kind {self.kind}. Leave it out."
            )


@dataclass(frozen=True)
class StormCurriculum:
    """Stages in order. The three schedules below make the usual ones.

    Args:
        stages (`tuple[CurriculumStage, ...]`):
            At least one.
        reasoning_column (`str`, *optional*, defaults to `"chain_of_thought"`):
            Column of the data set that holds the written chain of thought, where a stage needs it.

    Raises:
        ConfigurationError: If there is no stage, or one that learns to see is not the first.

    Example:
        ```python
        [stage.num_latents for stage in StormCurriculum.growing([2, 4, 8]).stages]  # [2, 4, 8, 8]
        ```
    """

    stages: tuple[CurriculumStage, ...]
    reasoning_column: NonEmptyStr = "chain_of_thought"

    def __post_init__(self) -> None:
        check_values(self)
        if not self.stages:
            raise ConfigurationError("A curriculum needs at least one stage, got none.")
        if any(stage.kind == "base" for stage in self.stages[1:]):
            raise ConfigurationError("A base stage must be the first: it teaches a random backbone to see.")

    @classmethod
    def two_stages(cls, num_latents: int | None = None) -> "StormCurriculum":
        """The curriculum of arXiv 2605.26014: align the latents with thought videos, then train on answers alone."""
        return cls((CurriculumStage("align", num_latents), CurriculumStage("answer", num_latents)))

    @classmethod
    def growing(cls, num_latents: Sequence[int]) -> "StormCurriculum":
        """K grows: Stage I with each number of latents, and Stage II with the last one.

        Every stage pools its targets anew, so that K slots always share the whole thought video. What its first slots
        mean changes from stage to stage; whitening that is `pooled` over slots serves them all.

        Args:
            num_latents (`Sequence[int]`):
                For example `[2, 4, 8]`.

        Raises:
            ConfigurationError: If the numbers do not grow, or do not begin with 1 or more.
        """
        check_value("num_latents", num_latents, Sequence[int])
        if not num_latents or not all(before < after for before, after in pairwise([0, *num_latents])):
            raise ConfigurationError(
                f"`num_latents` must grow from 1 or more, as [2, 4, 8] does, got {list(num_latents)}."
            )
        aligned = [CurriculumStage("align", number) for number in num_latents]
        return cls((*aligned, CurriculumStage("answer", num_latents[-1])))

    @classmethod
    def coconut(
        cls, num_steps: int, latents_per_step: int = 1, reasoning_column: str = "chain_of_thought"
    ) -> "StormCurriculum":
        """Latents take the place of written reasoning, step by step (Coconut, arXiv 2412.06769, section 3).

        Stage s of `num_steps` + 1, counted from 0, has `s * latents_per_step` latents, and its answers lack the first s steps
        of their chain. The first stage writes the whole chain without latents, the last one nothing but the answer.

        Args:
            num_steps (`int`):
                Steps of the longest chain. What a longer one has left is dropped in the last stage.
            latents_per_step (`int`, *optional*, defaults to `1`):
                Latents that stand for one step; c in the paper.
            reasoning_column (`str`, *optional*, defaults to `"chain_of_thought"`):
                Column that holds the chain.

        Raises:
            ConfigurationError: If a number is below 1.
        """
        for name, number in (("num_steps", num_steps), ("latents_per_step", latents_per_step)):
            check_value(name, number, PositiveInt)
        written = [CurriculumStage("answer", step * latents_per_step, step) for step in range(num_steps)]
        return cls((*written, CurriculumStage("answer", num_steps * latents_per_step)), reasoning_column)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "StormCurriculum":
        """Make a curriculum of what a YAML file holds.

        Args:
            content (`Mapping[str, Any]`):
                `stages`: a list with a mapping per stage, or a schedule, as in `stages: two_stages` or
                `stages: {coconut: {num_steps: 6}}`. Beside a list there may be `reasoning_column`.

        Raises:
            ConfigurationError: If it holds anything else.
        """
        check_names(content, ("stages", "reasoning_column"), "a curriculum")
        stages = content.get("stages")
        if isinstance(stages, list):
            made = tuple(make_settings(CurriculumStage, stage, "a stage") for stage in stages)
            return cls(made, **{name: value for name, value in content.items() if name == "reasoning_column"})
        if "reasoning_column" in content:
            raise ConfigurationError(
                "`reasoning_column` stands beside a list of stages; give it to `coconut` instead."
            )
        name, arguments = _named(stages)
        return _call(name, cls._schedules()[name], arguments)

    @classmethod
    def _schedules(cls) -> "dict[str, Callable[..., StormCurriculum]]":
        return {"two_stages": cls.two_stages, "growing": cls.growing, "coconut": cls.coconut}


def _named(stages: object) -> tuple[str, Mapping[str, Any]]:
    """Take a schedule apart into its name and its arguments."""
    if isinstance(stages, Mapping) and len(stages) == 1:
        ((name, arguments),) = stages.items()
    else:
        name, arguments = stages, {}
    known = StormCurriculum._schedules()
    if not isinstance(name, str) or name not in known or not isinstance(arguments or {}, Mapping):
        raise ConfigurationError(
            f"`stages` must be a list of stages or one of {', '.join(known)} with its arguments, got {stages!r}. "
            "A recipe of one stage is for `storm align`, `answer` or `grpo`."
        )
    return name, arguments or {}


def _call(name: str, schedule: Callable[..., StormCurriculum], arguments: Mapping[str, Any]) -> StormCurriculum:
    parameters = inspect.signature(schedule).parameters
    check_names(arguments, parameters, f"the schedule {name}")
    required = {each for each, parameter in parameters.items() if parameter.default is parameter.empty}
    if missing := sorted(required - set(arguments)):
        raise ConfigurationError(f"The schedule {name} needs {', '.join(missing)}, got {dict(arguments)}.")
    return schedule(**arguments)
