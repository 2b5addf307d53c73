"""A recipe as a plan reads it: the arguments of its stage, with what a stage before it decides."""

import difflib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from storm_hf.align.config import StormAlignConfig
from storm_hf.curriculum.recipe import argument_records
from storm_hf.errors import ConfigurationError
from storm_hf.model.rollout_storm import RolloutGradient
from storm_hf.planning.backbone import KNOWN, is_checkpoint
from storm_hf.reinforce.config import StormGRPOConfig
from storm_hf.settings import read_yaml
from storm_hf.training.config import StormTrainingConfig
from storm_hf.training.loading import StormModelConfig


Stage = Literal["align", "answer", "grpo"]
_PARSER_KEYS = {"env", "config"}  # of TRL's parser itself
_INHERITED = ("num_latents", "latent_projector", "num_frames")  # saved with the checkpoint
_WHOLE_NUMBERS = (
    *("num_latents", "num_frames", "per_device_train_batch_size", "gradient_accumulation_steps", "lora_r"),
    *("num_generations", "max_completion_length", "steps_per_generation", "generation_batch_size", "num_iterations"),
)
_OF_BUILDER = {"sources", "world", "splits"}
_NUM_FRAMES = 32  # where neither recipe nor processor sets it


@dataclass(frozen=True)
class Recipe:
    """A recipe of `trainers/recipes`.

    Args:
        path (`Path`):
            The file.
        stage (`str`):
            `"align"` (Stage I), `"answer"` (Stage II, and what trains without latents) or `"grpo"` (reinforcement).
        arguments (`dict`):
            Arguments of the recipe, and those of the recipe of the stage before about the checkpoint.
        backbone (`str`):
            The checkpoint that the first stage starts from.
    """

    path: Path
    stage: Stage
    arguments: dict[str, Any]
    backbone: str

    def __getitem__(self, name: str) -> Any:
        """An argument, or its default."""
        return self.arguments[name] if name in self.arguments else _defaults(self.stage).get(name)

    @property
    def num_frames(self) -> int:
        """Frames that are read of each clip."""
        return self["num_frames"] or _NUM_FRAMES

    @property
    def uses_bf16(self) -> bool:
        """True if it multiplies in 16 bits; by default where there is a GPU."""
        return not (self["use_cpu"] or self["fp16"]) if self["bf16"] is None else self["bf16"]

    @property
    def is_rollout(self) -> bool:
        """True if the latents are rolled out, so that the sequence runs in chunks."""
        given = {"align": self["forcing"] == "teacher", "answer": False, "grpo": self["estimator"] == "score"}
        return self["num_latents"] != 0 and not given[self.stage]

    @property
    def freezes_vision(self) -> bool:
        """True if the vision tower is frozen; in reinforcement it always is."""
        return self.stage == "grpo" or self["freeze_vision"]

    @property
    def gradient(self) -> RolloutGradient:
        """Truncation of the gradient of the rollout."""
        return RolloutGradient(bool(self["detach_prompt"]), self["truncate_steps"], self["jacobi_sweeps"])

    @property
    def model(self) -> StormModelConfig:
        """Its arguments about the model."""
        names = {field.name for field in fields(StormModelConfig)}
        return StormModelConfig(**{name: value for name, value in self.arguments.items() if name in names})


def read_recipe(path: Path, backbone: str | None = None) -> Recipe:
    """Read a recipe, and follow the folders that it starts from back to a backbone.

    Args:
        path (`Path`):
            A YAML file as `trainers/align.py`, `trainers/answer.py` and `trainers/grpo.py` take it.
        backbone (`str`, *optional*):
            Takes the place of the recipe's `model_name_or_path`.

    Raises:
        ConfigurationError: If it is no such file, or holds what no argument is called.
    """
    arguments = _read(path)
    named = _stage_in_name(path)
    _check_names(path, arguments, (named,) if named else get_args(Stage))  # a misspelt key names no stage
    stage = named or _stage_of(arguments)
    _check_names(path, arguments, (stage,))
    _check_numbers(path, arguments)
    name = backbone or arguments.get("model_name_or_path")
    if name is None:
        raise ConfigurationError(
            f"Expected `model_name_or_path` in {path}, got none. Add it, or name a folder with --model."
        )
    for earlier in _stages_before(path, name):
        inherited = {key: earlier[key] for key in _INHERITED if key in earlier}
        arguments = {**inherited, **arguments}
        name = earlier["model_name_or_path"]
    return Recipe(path, stage, arguments, str(name))


def _read(path: Path) -> dict[str, Any]:
    arguments = read_yaml(path)
    if "stages" in arguments:
        raise ConfigurationError(
            f"{path} is a recipe of several stages. Plan each of them: the files that it names under `align`, `answer` and "
            "`grpo`."
        )
    if _OF_BUILDER & arguments.keys():
        raise ConfigurationError(
            f"{path} is a recipe of a data set, not of a trainer. `storm build {path}` builds it; plan the recipe that trains on it."
        )
    return arguments


def _stage_in_name(path: Path) -> Stage | None:
    """The stage that the name of the file ends with."""
    last_word = path.stem.rpartition("_")[2]
    stages: dict[str, Stage] = {"align": "align", "answer": "answer", "base": "answer", "grpo": "grpo"}
    return stages.get(last_word)


def _stage_of(arguments: dict[str, Any]) -> Stage:
    """The stage that alone has one of the arguments; by default Stage II."""
    shared = {field.name for field in fields(StormTrainingConfig)}
    configs: dict[Stage, type] = {"align": StormAlignConfig, "grpo": StormGRPOConfig}
    own = {stage: {field.name for field in fields(config)} - shared for stage, config in configs.items()}
    return next((stage for stage in own if own[stage] & arguments.keys()), "answer")


def _defaults(stage: Stage) -> dict[str, Any]:
    """Every argument that the stage's script knows, with its default."""
    defaults: dict[str, Any] = {}
    for known in argument_records(stage):
        for field in fields(known):
            defaults[field.name] = None if field.default is MISSING else field.default
    return defaults


def _check_names(path: Path, arguments: dict[str, Any], stages: tuple[Stage, ...]) -> None:
    known = _PARSER_KEYS.union(*map(_defaults, stages))
    scripts = [f"trainers/{stage}.py" for stage in stages]
    for name in arguments:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"Did you mean `{near[0]}`?" if near else f"`python {scripts[0]} --help` lists all."
            of_scripts = " or ".join(f"`{script}`" for script in scripts)
            raise ConfigurationError(f"Expected arguments of {of_scripts} in {path}, got `{name}`. {hint}")


def _check_numbers(path: Path, arguments: dict[str, Any]) -> None:
    for name in _WHOLE_NUMBERS:
        value = arguments.get(name)
        least = 0 if name == "num_latents" else 1
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise ConfigurationError(f"Expected a whole number from {least} up for `{name}` in {path}, got {value!r}.")


def _stages_before(path: Path, name: str) -> Iterator[dict[str, Any]]:
    """Recipes beside this one, each of which writes the folder that the next one starts from."""
    seen = {name}
    while name not in KNOWN and not is_checkpoint(name):
        earlier = next((recipe for recipe in _beside(path) if recipe.get("output_dir") == name), None)
        if earlier is None or earlier.get("model_name_or_path") in (None, *seen):
            return
        yield earlier
        name = earlier["model_name_or_path"]
        seen.add(name)


def _beside(path: Path) -> Iterator[dict[str, Any]]:
    """Recipes in the same folder; what is none is passed over."""
    for other in sorted(path.parent.glob("*.yaml")):
        with suppress(ConfigurationError):
            yield read_yaml(other)
