"""The recipe of a run of several stages: one YAML file, from which every stage gets the arguments of its script.

    model_name_or_path: runs/tiny/base       what the first stage starts from; each later one starts from the one before
    output_dir: runs/tiny/run                each stage has a folder in it: 1-align, 2-answer, ...
    dataset_name: data/shuffle               this and any other argument of the scripts: for all stages
    align: {config: worlds_tiny_align.yaml}  for all stages of a kind; `config` is a recipe of the stage's script
    stages:                                  the curriculum, see `StormCurriculum.from_dict`
    - {kind: align, max_steps: 300}          and what a single stage has of its own
    - {kind: answer, config: worlds_tiny_answer.yaml}
    - {kind: grpo, config: worlds_tiny_grpo.yaml}

The more special one wins: a script's own recipe, then all stages, then the kind, then the stage, then the command line. Where a
`grpo` stage follows an `align` stage, its noise lies in the directions of that stage's targets, unless the run names others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

from trl import ScriptArguments

from storm_hf.align.config import StormAlignConfig
from storm_hf.answer.config import StormAnswerConfig
from storm_hf.curriculum.schedule import CurriculumStage, StageKind, StormCurriculum
from storm_hf.errors import ConfigurationError
from storm_hf.reinforce.config import StormGRPOConfig
from storm_hf.settings import read_yaml
from storm_hf.training.loading import StormModelConfig


Arguments = Mapping[str, Any]

_KINDS = get_args(StageKind)
_OF_THE_RUN = ("output_dir", "model_name_or_path")
_OF_THE_PLAN = (*_KINDS, *_OF_THE_RUN, "stages", "reasoning_column")
_CONFIG_OF = {
    "base": StormAnswerConfig,
    "align": StormAlignConfig,
    "answer": StormAnswerConfig,
    "grpo": StormGRPOConfig,
}


@dataclass(frozen=True)
class StageRun:
    """One stage of a run, with everything that its script needs but the places.

    Args:
        name (`str`):
            Its folder, such as `"1-align"`.
        stage ([`CurriculumStage`]):
            Its place in the curriculum.
        arguments (`Mapping[str, Any]`):
            Arguments of its script, without `output_dir` and `model_name_or_path`, which the run knows.
        stage_one (`str`, *optional*):
            Folder of the last `align` stage before it, if there is one.
    """

    name: str
    stage: CurriculumStage
    arguments: Arguments
    stage_one: str | None = None


@dataclass(frozen=True)
class RunRecipe:
    """Everything that determines a run.

    Args:
        model_name_or_path (`str`):
            Checkpoint of the first stage.
        output_dir (`Path`):
            Folder of the run.
        stages (`tuple[StageRun, ...]`):
            The stages in order.
        reasoning_column (`str`, *optional*, defaults to `"chain_of_thought"`):
            See [`StormCurriculum`].
    """

    model_name_or_path: str
    output_dir: Path
    stages: tuple[StageRun, ...]
    reasoning_column: str = "chain_of_thought"

    @classmethod
    def read(cls, path: str | Path, overrides: Arguments | None = None) -> "RunRecipe":
        """Read a recipe.

        Args:
            path (`str` or `Path`):
                A YAML file as shown above. Paths of `config` are relative to it, all others to where the run is started.
            overrides (`Mapping[str, Any]`, *optional*):
                Arguments that replace those of every stage, `output_dir` and `model_name_or_path` of the run among them.

        Raises:
            ConfigurationError: If there is no such file, or it does not say what a run needs, or an argument is unknown.
        """
        return cls.from_dict(read_yaml(Path(path)), Path(path).parent, overrides or {})

    @classmethod
    def from_dict(cls, content: Arguments, folder: Path = Path(), overrides: Arguments | None = None) -> "RunRecipe":
        """Make a recipe of what its file holds. Arguments as in `read`; `folder` is that of the file."""
        overrides = dict(overrides or {})
        places = {name: overrides.pop(name, content.get(name)) for name in _OF_THE_RUN}
        curriculum = StormCurriculum.from_dict(_plan_of(content))
        _check_overrides(overrides, curriculum)
        settings = _Settings(content, folder, overrides)
        stages = settings.of_stages(curriculum.stages)
        first = settings.file_of(curriculum.stages[0].kind, 1)
        model = places["model_name_or_path"] or first.get("model_name_or_path")
        if not model or not places["output_dir"]:
            raise ConfigurationError(
                "A run needs `model_name_or_path`, what its first stage starts from, and `output_dir`, the folder of all "
                f"stages; got {places}."
            )
        _check_towers(stages)
        return cls(str(model), Path(places["output_dir"]), stages, curriculum.reasoning_column)


@dataclass(frozen=True)
class _Settings:
    """Merge the arguments of five sources."""

    content: Arguments
    folder: Path
    overrides: Arguments = field(default_factory=dict)

    def of_stages(self, stages: Sequence[CurriculumStage]) -> tuple[StageRun, ...]:
        """Name the stages in order, with their arguments and the last Stage I before each."""
        width, stage_one, runs = len(str(len(stages))), None, []
        for number, stage in enumerate(stages, start=1):
            name = f"{number:0{width}}-{stage.kind}"
            runs.append(StageRun(name, stage, self.of_stage(stage, number, stage_one is not None), stage_one))
            stage_one = name if stage.kind == "align" else stage_one
        return tuple(runs)

    def of_stage(self, stage: CurriculumStage, number: int, has_stage_one: bool) -> Arguments:
        """All arguments of a stage's script, checked by name. Its own recipe names the Stage I of another run."""
        places = (*_OF_THE_RUN, "latent_subspace") if has_stage_one else _OF_THE_RUN
        of_file = _without(self.file_of(stage.kind, number), *places, "resume_from_checkpoint")
        of_run = _without(self.content, *_OF_THE_PLAN)
        of_kind = _without(self._of_kind(stage.kind), "config")
        of_one = _without(self._of_one(number), "kind", "config", "num_replaced")
        for where, given in (("The recipe", of_run), (f"`{stage.kind}`", of_kind), (f"Stage {number}", of_one)):
            _check_free(where, given)
        layers = (of_file, of_run, of_kind, of_one, self.overrides)
        merged = {name: value for layer in layers for name, value in layer.items()}
        planned = 0 if stage.kind == "base" else stage.num_latents
        if planned is not None:
            merged["num_latents"] = planned
        _check_arguments(stage.kind, merged)
        if stage.num_replaced is not None and merged.get("question_style") == "letters":
            raise ConfigurationError(
                f"Stage {number} writes a chain of thought before the answer, which `question_style: letters` cannot. Use "
                "words or none."
            )
        return merged

    def file_of(self, kind: str, number: int) -> Arguments:
        """The script's own recipe that the stage, or else its kind, names as `config`."""
        name = self._of_one(number).get("config", self._of_kind(kind).get("config"))
        if name is None:
            return {}
        return read_yaml(self.folder / str(name))

    def _of_kind(self, kind: str) -> Arguments:
        given = self.content.get(kind) or {}
        if not isinstance(given, Mapping):
            raise ConfigurationError(f"`{kind}` must be a mapping of arguments for all its stages, got {given!r}.")
        return given

    def _of_one(self, number: int) -> Arguments:
        stages = self.content["stages"]
        return stages[number - 1] if isinstance(stages, list) else {}


def argument_records(kind: StageKind) -> tuple[type, ...]:
    """The dataclasses whose fields are the arguments of a script."""
    return ScriptArguments, _CONFIG_OF[kind], StormModelConfig


def _check_arguments(kind: StageKind, arguments: Arguments) -> None:
    """Make sure that a script will know each of its arguments, before the stages ahead of it have trained for days.

    Raises:
        ConfigurationError: If it does not know one, or the stage could not be resumed.
    """
    known = {each.name for record in argument_records(kind) for each in fields(record) if each.init} | {"env"}
    if unknown := sorted(set(arguments) - known):
        raise ConfigurationError(
            f"trainers/{kind}.py does not know {', '.join(unknown)}. Correct the name, or give it to the stages of another "
            "kind alone."
        )
    if (strategy := str(arguments.get("save_strategy", "steps"))) not in ("steps", "epoch"):
        raise ConfigurationError(
            f"`save_strategy` must be steps or epoch, got {strategy}: the last checkpoint of a stage marks it as finished."
        )


def _plan_of(content: Arguments) -> dict[str, Any]:
    """Fields of a recipe that describe the curriculum, without the arguments of single stages."""
    plan = {name: content[name] for name in ("stages", "reasoning_column") if name in content}
    if isinstance(stages := plan.get("stages"), list):
        ours = {each.name for each in fields(CurriculumStage)}
        plan["stages"] = [_only(stage, ours) if isinstance(stage, Mapping) else stage for stage in stages]
    return plan


def _only(content: Arguments, names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name in names}


def _without(content: Arguments, *names: str) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name not in names}


def _check_free(where: str, given: Arguments) -> None:
    if taken := [name for name in (*_OF_THE_RUN, "resume_from_checkpoint") if name in given]:
        raise ConfigurationError(
            f"{where} must not have {', '.join(taken)}: the run knows what its stages start from and where they write, and "
            "resumes each."
        )


def _check_overrides(overrides: Arguments, curriculum: StormCurriculum) -> None:
    _check_free("The command line", overrides)
    if taken := sorted({*_OF_THE_PLAN, "kind", "config", "num_replaced"} & set(overrides)):
        raise ConfigurationError(f"{', '.join(taken)} cannot be given on the command line. Write it into the recipe.")
    if "num_latents" in overrides and any(stage.num_latents is not None for stage in curriculum.stages):
        raise ConfigurationError(
            f"The stages say their own `num_latents`, so that {overrides['num_latents']} for all of them contradicts the "
            "recipe. Change the recipe."
        )


def _check_towers(stages: tuple[StageRun, ...]) -> None:
    """Targets are made by the vision tower that Stage I starts with; a base stage of the same run would change it."""
    is_trained = stages[0].stage.kind == "base" and not stages[0].arguments.get("freeze_vision", False)
    if is_trained and any(run.stage.kind == "align" for run in stages):
        raise ConfigurationError(
            "A base stage trains the vision tower, and the targets of an align stage must be made by the trained one. Run "
            "trainers/base.py first, build the data set with its result, and begin the run with align."
        )
