"""Requirements of a recipe, before anything is loaded: parameters, memory, arithmetic.

Nothing is derived: one step of the real model runs without data (`dry_run`). What processes share is arithmetic (`memory`). All
figures are per process; memory in bytes, of one update of the weights.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from storm_hf.errors import ConfigurationError
from storm_hf.planning.backbone import Backbone, ClipTokens, clip_of_prompt, clip_tokens, load_backbone
from storm_hf.planning.memory import FLOAT32, HeldMemory, Sharing, Weights, held_memory
from storm_hf.planning.recipe import Recipe, read_recipe
from storm_hf.planning.step import Sequence, StepMemory, measure_step
from storm_hf.training.flops import ParameterCounts


_ANSWER_TOKENS = 8  # where neither the user nor the recipe says how long an answer is


@dataclass(frozen=True)
class Assumptions:
    """Values that a recipe does not give.

    Args:
        sharing ([`~storm_hf.planning.memory.Sharing`], *optional*):
            Processes and ZeRO stage. By default one process.
        clip_size (`tuple[int, int]`, *optional*, defaults to `(640, 360)`):
            Width and height of the clips in pixels.
        prompt_tokens (`int`, *optional*):
            Length of the prompts, video included. By default what the clip gives, and `question_tokens`.
        question_tokens (`int`, *optional*, defaults to `128`):
            Question, options and chat template.
        answer_tokens (`int`, *optional*):
            The answer, with the end of the turn. By default as long as `max_completion_length` lets it be in reinforcement, and 8
            elsewhere.
    """

    sharing: Sharing = Sharing()
    clip_size: tuple[int, int] = (640, 360)
    prompt_tokens: int | None = None
    question_tokens: int = 128
    answer_tokens: int | None = None


@dataclass(frozen=True)
class Plan:
    """Requirements of a recipe, per process.

    Args:
        recipe ([`~storm_hf.planning.recipe.Recipe`]):
            The recipe.
        sharing ([`~storm_hf.planning.memory.Sharing`]):
            Processes and ZeRO stage.
        parameters ([`~storm_hf.training.flops.ParameterCounts`]):
            By part; those of an adapter count to the part that they change.
        weights ([`~storm_hf.planning.memory.Weights`]):
            Weights, and their precision.
        adapter_parameters (`int`):
            Those of LoRA alone, without the latent projector.
        tokens ([`~storm_hf.planning.step.Sequence`]):
            Of one row.
        video_tokens (`int`):
            Number of video tokens of its prompt.
        held ([`~storm_hf.planning.memory.HeldMemory`]):
            Memory from step to step.
        step ([`~storm_hf.planning.step.StepMemory`]):
            Memory of a step.
        flops (`int`):
            Model FLOPs of an update, over all its batches; what is computed again does not count.
    """

    recipe: Recipe
    sharing: Sharing
    parameters: ParameterCounts
    weights: Weights
    adapter_parameters: int
    tokens: Sequence
    video_tokens: int
    held: HeldMemory
    step: StepMemory
    flops: int

    @property
    def update(self) -> int:
        """Memory of the update of the weights: ZeRO copies its share of the gradients to float32."""
        return 2 * self.held.gradients if self.sharing.zero_stage else 0

    @property
    def peak(self) -> int:
        """Most memory at a time."""
        held, step = self.held, self.step
        divided = held.gradients if self.sharing.zero_stage else 0  # the passes leave them out
        passes = divided + max(step.forward, step.backward)
        most = max(passes, held.gradients + self.update, self.rollouts)
        return held.weights + held.reference + held.optimizer + held.communication + most

    @property
    def rollouts(self) -> int:
        """Memory of the roll-outs of reinforcement, for which ZeRO-3 gathers all weights unless `ds3_gather_for_generation` is off."""
        is_gathered = self.sharing.zero_stage == 3 and self.recipe["ds3_gather_for_generation"]
        return self.step.rollouts + self.weights.size * is_gathered if self.step.rollouts else 0

    def step_seconds(self, peak_flops: float, utilisation: float) -> float:
        """Time of an update at a share of a device's peak."""
        return self.flops / (peak_flops * utilisation)


def plan_recipe(path: Path, assumptions: Assumptions | None = None, config: str | None = None) -> Plan:
    """Find the requirements of a recipe from its file and the backbone's configuration.

    Args:
        path (`Path`):
            The recipe.
        assumptions ([`Assumptions`], *optional*):
            Values that it does not give.
        config (`str`, *optional*):
            Folder or name of the backbone, where the recipe's own cannot be read.

    Raises:
        StormError: If the recipe or the backbone cannot be read, or its step cannot be run without data.
    """
    assumptions = assumptions or Assumptions()
    sharing = assumptions.sharing
    recipe = read_recipe(path, config)
    _optimizer(recipe)  # refused before the step is run, which takes a minute
    backbone = load_backbone(recipe.backbone)
    recipe = _completed(recipe, backbone)
    clip, tokens = _sequence(recipe, backbone, assumptions)
    step = measure_step(recipe, backbone, tokens, clip, sharing)
    return Plan(
        recipe=recipe,
        sharing=sharing,
        parameters=step.parameters,
        weights=step.weights,
        adapter_parameters=step.adapter_parameters,
        tokens=tokens,
        video_tokens=clip.video if clip else 0,
        held=_held(recipe, step.weights, sharing),
        step=step.memory,
        flops=step.flops * recipe["gradient_accumulation_steps"],
    )


def _completed(recipe: Recipe, backbone: Backbone) -> Recipe:
    """With K and the projector that the checkpoint brings."""
    storm = backbone.storm
    own = {
        "num_latents": 8 if storm is None else storm.num_latents,
        "latent_projector": "linear" if storm is None else storm.latent_projector,
    }
    given = {name: value for name, value in recipe.arguments.items() if value is not None}
    return replace(recipe, arguments={**own, **given})


def _sequence(recipe: Recipe, backbone: Backbone, assumptions: Assumptions) -> tuple[ClipTokens | None, Sequence]:
    num_latents, prompt = recipe["num_latents"], assumptions.prompt_tokens
    if prompt is None:
        clip: ClipTokens | None = clip_tokens(backbone, recipe.num_frames, *assumptions.clip_size)
        assert clip is not None
        prompt = clip.video + clip.separators + assumptions.question_tokens
    else:
        clip = clip_of_prompt(backbone, max(prompt - assumptions.question_tokens, 0), recipe.num_frames)
    markers = 1 if num_latents else 0  # one ends the prompt, one begins the answer
    answer = assumptions.answer_tokens or recipe["max_completion_length"] or _ANSWER_TOKENS
    return clip, Sequence(prompt + markers, num_latents, answer + markers)


def _held(recipe: Recipe, weights: Weights, sharing: Sharing) -> HeldMemory:
    """Count what is held: with `beta` reinforcement also has a copy of the model that it began with, unless PEFT's adapter is trained."""
    held = held_memory(weights, sharing, _bytes_per_state(recipe, weights, sharing))
    is_copied = bool(recipe.stage == "grpo" and recipe["beta"] and not recipe.model.use_peft)
    return replace(held, reference=weights.size * is_copied)


def _bytes_per_state(recipe: Recipe, weights: Weights, sharing: Sharing) -> int:
    """Bytes of a state of AdamW: those of the parameter, four under DeepSpeed, or one."""
    if "8bit" in _optimizer(recipe):
        return 1
    return FLOAT32 if sharing.zero_stage else weights.trainable_size // weights.trainable


def _optimizer(recipe: Recipe) -> str:
    optimizer = str(getattr(recipe["optim"], "value", recipe["optim"]))
    if "adamw" not in optimizer:
        raise ConfigurationError(f"`storm plan` knows the optimizer states of AdamW, got `optim: {optimizer}`.")
    return optimizer
