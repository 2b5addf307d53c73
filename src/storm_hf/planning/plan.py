"""Requirements of a recipe, derived before anything is loaded: parameters, memory, arithmetic.

All figures are per process; memory in bytes, of one update of the weights.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from storm_hf.errors import ConfigurationError
from storm_hf.planning.backbone import Backbone, load_backbone, without_weights
from storm_hf.planning.clip import ClipTokens, clip_of_prompt, clip_tokens
from storm_hf.planning.layers import Layers, head_gradient_bytes, logits_bytes, vision_bytes
from storm_hf.planning.memory import HeldMemory, Sharing, StepMemory, Weights, held_memory, peak_memory
from storm_hf.planning.passes import (
    FLOAT16,
    FLOAT32,
    Adapter,
    Arithmetic,
    Piece,
    Sequence,
    parallel_pass,
    rollout_passes,
)
from storm_hf.planning.recipe import Recipe, read_recipe
from storm_hf.planning.shape import DecoderShape
from storm_hf.training.device import PEAK_FLOPS_PER_SECOND
from storm_hf.training.flops import ParameterCounts, TokenCounts, attention_shape, count_parameters, training_flops
from storm_hf.training.peft import peft_config, train_in_float32
from storm_hf.training.trainer import freeze_vision


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
        answer_tokens (`int`, *optional*, defaults to `8`):
            The answer, with the end of the turn.
    """

    sharing: Sharing = Sharing()
    clip_size: tuple[int, int] = (640, 360)
    prompt_tokens: int | None = None
    question_tokens: int = 128
    answer_tokens: int = 8


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
        tokens ([`~storm_hf.planning.passes.Sequence`]):
            Of one row.
        video_tokens (`int`):
            Number of video tokens of its prompt.
        held ([`~storm_hf.planning.memory.HeldMemory`]):
            Memory from step to step.
        step ([`~storm_hf.planning.memory.StepMemory`]):
            Memory of a step.
        peak (`int`):
            Most memory at a time.
        flops (`float`):
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
    peak: int
    flops: float

    def step_seconds(self, peak_flops: float, utilisation: float) -> float:
        """Time of an update at a share of a device's peak."""
        return self.flops / (peak_flops * utilisation)


def plan_recipe(path: Path, assumptions: Assumptions | None = None, config: str | None = None) -> Plan:
    """Work out what a recipe needs, from its file and the backbone's configuration alone.

    Args:
        path (`Path`):
            The recipe.
        assumptions ([`Assumptions`], *optional*):
            Values that it does not give.
        config (`str`, *optional*):
            Folder or name of the backbone, where the recipe's own cannot be read.

    Raises:
        StormError: If the recipe or the backbone cannot be read, or is of a kind that the formulas do not know.
    """
    assumptions = assumptions or Assumptions()
    recipe = read_recipe(path, config)
    backbone = load_backbone(recipe.backbone)
    recipe = _completed(recipe, backbone)
    clip, tokens = _sequence(recipe, backbone, assumptions)
    model, quantized, adapter_parameters = _build(recipe, backbone)
    parameters = count_parameters(model)
    weights, numbers, adapter = _held_as(recipe, backbone, model, quantized, assumptions.sharing)
    held = held_memory(weights, assumptions.sharing, _bytes_per_state(recipe, weights, assumptions.sharing))
    layers = Layers(
        DecoderShape.of(backbone.config), numbers, adapter, bool(recipe["gradient_checkpointing"]), quantized > 0
    )
    step, pieces = _step_memory(recipe, backbone, layers, tokens, clip, parameters, held, assumptions.sharing)
    return Plan(
        recipe=recipe,
        sharing=assumptions.sharing,
        parameters=parameters,
        weights=weights,
        adapter_parameters=adapter_parameters,
        tokens=tokens,
        video_tokens=clip.video if clip else 0,
        held=held,
        step=step,
        peak=peak_memory(
            held, step, recipe["gradient_accumulation_steps"] > 1, layers.is_checkpointed, len(pieces) > 1
        ),
        flops=_flops(recipe, backbone, parameters, tokens, clip),
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
    return clip, Sequence(prompt + markers, num_latents, assumptions.answer_tokens + markers)


def _build(recipe: Recipe, backbone: Backbone) -> tuple[nn.Module, int, int]:
    """The model with its adapter, on no device; how many weights are in 4 bits, and how many LoRA adds."""
    args = recipe.model
    if args.load_in_8bit:
        raise ConfigurationError("`storm plan` knows weights in 4 bits, got `load_in_8bit`. Use `load_in_4bit`.")
    model = without_weights(backbone, recipe["num_latents"], recipe["latent_projector"])
    freeze_vision(model, recipe["freeze_vision"])
    matrices = [module.weight for module in model.get_decoder().modules() if isinstance(module, nn.Linear)]
    quantized = sum(matrix.numel() for matrix in matrices) if args.load_in_4bit else 0
    lora = peft_config(args, model)
    if lora is None:
        return model, quantized, 0
    from peft import get_peft_model

    adapted = get_peft_model(model, lora)
    train_in_float32(adapted, {})
    added = sum(parameter.numel() for name, parameter in adapted.named_parameters() if "lora_" in name)
    return adapted, quantized, added


def _held_as(
    recipe: Recipe, backbone: Backbone, model: nn.Module, quantized: int, sharing: Sharing
) -> tuple[Weights, Arithmetic, Adapter | None]:
    """Numbers of weights and operands. DeepSpeed holds all weights in 16 bits under `bf16`; an adapter else has 32."""
    args = recipe.model
    is_half = sharing.zero_stage > 0 and recipe.uses_bf16
    loaded = args.dtype or "auto"
    if loaded == "auto":
        loaded = str(getattr(backbone.config, "dtype", None) or "float32").removeprefix("torch.")
    base = FLOAT16 if is_half or "16" in loaded else FLOAT32
    trained = FLOAT16 if is_half else FLOAT32 if args.use_peft else base
    weights = Weights(
        total=sum(parameter.numel() for parameter in model.parameters()),
        trainable=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        bytes_frozen=base,
        bytes_trainable=trained,
        quantized=quantized,
        has_nested_scales=args.use_bnb_nested_quant,
    )
    numbers = Arithmetic(base, FLOAT16 if recipe.uses_bf16 else base)
    adapter = Adapter(args.lora_r, trained, args.lora_dropout > 0) if args.use_peft else None
    return weights, numbers, adapter


def _bytes_per_state(recipe: Recipe, weights: Weights, sharing: Sharing) -> int:
    """Bytes of a state of AdamW: those of the parameter, four under DeepSpeed, or one."""
    optimizer = str(getattr(recipe["optim"], "value", recipe["optim"]))
    if "adamw" not in optimizer:
        raise ConfigurationError(f"`storm plan` knows the optimizer states of AdamW, got `optim: {optimizer}`.")
    if "8bit" in optimizer:
        return 1
    return FLOAT32 if sharing.zero_stage else weights.bytes_trainable


def _step_memory(
    recipe: Recipe,
    backbone: Backbone,
    layers: Layers,
    tokens: Sequence,
    clip: ClipTokens | None,
    parameters: ParameterCounts,
    held: HeldMemory,
    sharing: Sharing,
) -> tuple[StepMemory, list[Piece]]:
    num_rows, vision = recipe["per_device_train_batch_size"], backbone.config.vision_config
    pieces = rollout_passes(tokens, recipe.gradient) if recipe.is_rollout else parallel_pass(tokens)
    kept, workspace = layers.backward(pieces, tokens.total)
    trained_head = parameters.embeddings if parameters.is_head_tied else parameters.head
    head = head_gradient_bytes(
        layers.shape, layers.numbers.weights, trained_head.trainable > 0, parameters.is_head_tied
    )
    patches = num_rows * clip.patches if clip else 0
    pixels = clip.patch_pixels if clip else 0
    step = StepMemory(
        pixels=FLOAT32 * patches * pixels,
        vision=vision_bytes(patches, pixels, vision.hidden_size, vision.intermediate_size, layers.numbers),
        activations=num_rows * layers.activations(pieces, tokens.total),
        kept_in_backward=num_rows * kept,
        weight_copies=layers.weight_copies(pieces),
        cache=num_rows * layers.cache(pieces),
        workspace=num_rows * workspace + layers.matrix_workspace,
        logits=logits_bytes(num_rows * tokens.answer, layers.shape, layers.numbers),
        update=max(head, 2 * held.gradients if sharing.zero_stage else 0),
    )
    return step, pieces


def _flops(
    recipe: Recipe, backbone: Backbone, parameters: ParameterCounts, tokens: Sequence, clip: ClipTokens | None
) -> float:
    detached = 0 if not recipe.is_rollout or recipe.gradient.reaches_prompt(tokens.latents) else tokens.prompt
    row = TokenCounts(
        decoder=tokens.total,
        decoder_pairs=tokens.total**2,
        detached=detached,
        detached_pairs=detached**2,
        supervised=tokens.answer,
        latents=tokens.latents,
        patches=clip.patches if clip else 0,
        patch_pairs=clip.patches**2 // clip.grids if clip else 0,
        video=clip.video if clip else 0,
    )
    num_rows = recipe["per_device_train_batch_size"] * recipe["gradient_accumulation_steps"]
    return num_rows * training_flops(parameters, row, attention_shape(backbone.config))


def gpu_peak(name: str) -> tuple[str, float]:
    """Find a GPU by a part of its name, such as `h100`; its full name, and its dense 16-bit FLOPs per second.

    Raises:
        ConfigurationError: If none is called so.
    """
    for full_name, peak in PEAK_FLOPS_PER_SECOND.items():
        if name.casefold() in full_name.casefold():
            return full_name, peak
    known = ", ".join(full_name.removeprefix("NVIDIA ") for full_name in PEAK_FLOPS_PER_SECOND)
    raise ConfigurationError(f"Expected a part of the name of a known GPU, got {name!r}. Known are: {known}.")
