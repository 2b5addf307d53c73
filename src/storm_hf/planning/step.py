"""One step of a recipe as a dry run: the model as the trainers make it, a batch of its size, and the memory of the passes."""

import gc
import inspect
import math
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers.initialization import no_init_weights
from trl.trainer.utils import add_fused_lm_head, disable_dropout_in_model

from storm_hf.errors import BackboneError, ConfigurationError, StormError
from storm_hf.model import StormConfig, StormForConditionalGeneration
from storm_hf.planning.backbone import Backbone, ClipTokens
from storm_hf.planning.dry_run import DryRun
from storm_hf.planning.memory import Sharing, Weights
from storm_hf.planning.recipe import Recipe
from storm_hf.planning.rollouts import GenerationBatch, roll_out
from storm_hf.reinforce.noise import LatentRecord
from storm_hf.reinforce.replay import latent_arguments
from storm_hf.training.flops import ParameterCounts, count_parameters
from storm_hf.training.loading import thought_settings
from storm_hf.training.peft import peft_config, train_in_float32
from storm_hf.training.precision import HALF, frozen_weights_cast
from storm_hf.training.thought_adapter import leave_to_thought_adapter
from storm_hf.training.trained_weights import freeze_vision
from storm_hf.training.trainer import keep_supervised


_VIDEO_TYPE = 2  # of `mm_token_type_ids`
_CLIP_INPUTS = ("pixel_values_videos", "video_features", "video_deepstack")
_IMPLEMENTATIONS = ("eager", "sdpa")  # of attention; the others need a GPU, and use as much memory as the second


@dataclass(frozen=True)
class Sequence:
    """Tokens of a row.

    Args:
        prompt (`int`):
            Video and question, with `<|latent_start|>`.
        latents (`int`):
            Number K of latent steps.
        answer (`int`):
            `<|latent_end|>` and the answer; the positions that are projected to the vocabulary.
    """

    prompt: int
    latents: int
    answer: int

    @property
    def total(self) -> int:
        """Length of the row."""
        return self.prompt + self.latents + self.answer


@dataclass(frozen=True)
class StepMemory:
    """Memory that the passes of one batch add to what is held, in bytes.

    Args:
        pixels (`int`):
            The clips of the batch, as the processor makes them. They count in all that follows.
        vision (`int`):
            Most that is in use before the language model begins.
        activations (`int`):
            Bytes that the forward pass keeps for the backward pass.
        forward (`int`):
            Most that is in use in the forward pass, with gradients that accumulate.
        backward (`int`):
            Most that is in use in the backward pass, with the gradients; under ZeRO they are divided at once, and left out.
        rollouts (`int`, *optional*, defaults to `0`):
            Most that is in use while roll-outs are sampled, in reinforcement. Their clips, encoded, are then its `pixels`.
    """

    pixels: int
    vision: int
    activations: int
    forward: int
    backward: int
    rollouts: int = 0


@dataclass(frozen=True)
class Step:
    """Figures of a step.

    Args:
        parameters ([`~storm_hf.training.flops.ParameterCounts`]):
            By part; those of an adapter count to the part that they change.
        adapter_parameters (`int`):
            Those of LoRA alone, without the latent projector.
        weights ([`~storm_hf.planning.memory.Weights`]):
            Weights, and their bytes.
        memory ([`StepMemory`]):
            Memory of the passes of a batch.
        flops (`int`):
            Model FLOPs of the passes of a batch.
    """

    parameters: ParameterCounts
    adapter_parameters: int
    weights: Weights
    memory: StepMemory
    flops: int


def measure_step(
    recipe: Recipe, backbone: Backbone, tokens: Sequence, clip: ClipTokens | None, sharing: Sharing
) -> Step:
    """Run the passes of one batch without data.

    Args:
        recipe ([`~storm_hf.planning.recipe.Recipe`]):
            The recipe, with its number of latents.
        backbone ([`~storm_hf.planning.backbone.Backbone`]):
            Its backbone.
        tokens ([`Sequence`]):
            Tokens of each row.
        clip ([`~storm_hf.planning.backbone.ClipTokens`], *optional*):
            Clip of each row; `None` for words alone.
        sharing ([`~storm_hf.planning.memory.Sharing`]):
            Under ZeRO all weights have 16 bits with `bf16`.

    Raises:
        BackboneError: If the backbone computes sizes from its activations, which have no data here.
        ConfigurationError: If the weights are to be held in 8 bits.
    """
    try:
        with DryRun() as run:
            return _measure(run, recipe, backbone, tokens, clip, sharing)
    except StormError:
        raise
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise BackboneError(
            f"Expected a backbone whose step can be run without data, got `{backbone.config.model_type}`: {reason} Measure a "
            "short run instead: the trainers log `peak_memory_mib`."
        ) from error


def _measure(
    run: DryRun, recipe: Recipe, backbone: Backbone, tokens: Sequence, clip: ClipTokens | None, sharing: Sharing
) -> Step:
    storm = _storm(recipe, backbone, sharing)
    quantized = _quantize(storm) if recipe.model.load_in_4bit else []
    model = _adapted(storm, recipe, sharing, run)
    weights = Weights.of(model, quantized, recipe.model.use_bnb_nested_quant)
    num_rows = recipe["per_device_train_batch_size"]
    if recipe.stage == "grpo":
        size = GenerationBatch.of(recipe, sharing.num_processes)
        prompts = _batch(storm, recipe, tokens, clip, size.num_at_once, has_pixels=False)
        rollouts = roll_out(run, storm, size, _vision_inputs(clip, 1, storm.config), prompts)
        batch = rollouts.encoded(_batch(storm, recipe, tokens, clip, num_rows, has_pixels=False), num_rows)
        run.flops = rollouts.flops
        memory = _passes(run, model, storm, batch, recipe, sharing, rollouts.clip_bytes)
        memory = replace(memory, vision=rollouts.vision, rollouts=rollouts.peak)
    else:
        memory = _passes(run, model, storm, _batch(storm, recipe, tokens, clip, num_rows), recipe, sharing)
    in_adapter = [parameter.numel() for name, parameter in model.named_parameters() if "lora_" in name]
    return Step(count_parameters(model), sum(in_adapter), weights, memory, run.flops)


def _storm(recipe: Recipe, backbone: Backbone, sharing: Sharing) -> StormForConditionalGeneration:
    """The model, in the precision in which it is trained."""
    if recipe.model.load_in_8bit:
        raise ConfigurationError("`storm plan` knows weights in 4 bits, got `load_in_8bit`. Use `load_in_4bit`.")
    num_ids = backbone.config.get_text_config().vocab_size
    config = StormConfig(
        vlm_config=backbone.config.to_dict(),
        num_latents=recipe["num_latents"],
        latent_projector=recipe["latent_projector"],
        latent_attention=recipe["latent_attention"] or StormConfig.latent_attention,
        latent_start_token_id=num_ids - 3,
        latent_token_id=num_ids - 2,
        latent_end_token_id=num_ids - 1,
    )
    with no_init_weights():
        storm = StormForConditionalGeneration(config).train()
    if recipe["attn_implementation"] in _IMPLEMENTATIONS:
        storm.set_attn_implementation(recipe["attn_implementation"])
    freeze_vision(storm, recipe.freezes_vision)
    rank, dtype = recipe.model.thought_adapter_rank, _dtype(recipe, backbone, sharing)
    if rank is not None:
        storm.add_thought_adapter(**thought_settings(rank))
    if recipe["halting"]:
        storm.add_halting_head()
    has_adapter = recipe.model.use_peft or rank is not None
    is_cast = dtype in HALF and not has_adapter and not sharing.zero_stage
    return storm.to(torch.float32 if is_cast else dtype)


def _dtype(recipe: Recipe, backbone: Backbone, sharing: Sharing) -> torch.dtype:
    """Precision in which the weights are loaded; DeepSpeed holds all in 16 bits under `bf16`."""
    if sharing.zero_stage and recipe.uses_bf16:
        return torch.bfloat16
    name = recipe.model.dtype or "auto"
    if name == "auto":
        name = str(getattr(backbone.config, "dtype", None) or "float32").removeprefix("torch.")
    return getattr(torch, name)


class _InFourBits(torch.autograd.Function):
    """Projection with a matrix that is unpacked from 4 bits in each pass."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(weight)
        return nn.functional.linear(states, weight.clone(), bias)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return gradient @ weight.clone(), None, None


def _quantize(storm: StormForConditionalGeneration) -> list[nn.Parameter]:
    """Let each projection of the language model unpack its matrix, and list the matrices."""
    projections = [module for module in storm.get_decoder().modules() if isinstance(module, nn.Linear)]
    for module in projections:
        module.requires_grad_(False)
        module.__dict__["forward"] = partial(_project, module)
    return [module.weight for module in projections]  # type: ignore[misc]


def _project(module: nn.Linear, states: torch.Tensor) -> torch.Tensor:
    return _InFourBits.apply(states, module.weight, module.bias)


def _adapted(storm: StormForConditionalGeneration, recipe: Recipe, sharing: Sharing, run: DryRun) -> nn.Module:
    """The model with its adapter, its fused head and checkpointed layers."""
    add_fused_lm_head(storm)
    model: nn.Module = storm
    if storm.config.thought_adapter is not None:
        leave_to_thought_adapter(storm, in_float32=not sharing.zero_stage or not recipe.uses_bf16)
    if storm.model.halting_head is not None:
        storm.model.halting_head.requires_grad_(True)
    lora = peft_config(recipe.model, storm)
    if lora is not None:
        from peft import get_peft_model

        adapted = get_peft_model(storm, lora)
        train_in_float32(adapted, {})
        model = adapted.to(torch.bfloat16) if sharing.zero_stage and recipe.uses_bf16 else adapted
        if recipe["gradient_checkpointing"]:
            storm.enable_input_require_grads()
    if recipe["disable_dropout"]:
        disable_dropout_in_model(model)
    for module in model.modules():
        if isinstance(module, nn.Dropout) and module.p:
            module.__dict__["forward"] = partial(_drop, module.p)
    if recipe["gradient_checkpointing"]:
        storm.activation_checkpointing_enable({"use_reentrant": False, "context_fn": run.checkpoint_contexts})
    return model


def _drop(share: float, states: torch.Tensor) -> torch.Tensor:
    """Drop as GPUs do, which keep a mask of one byte a number; CPUs keep one as wide as the numbers."""
    return torch.native_dropout(states, share, train=True)[0]


def _batch(
    storm: StormForConditionalGeneration,
    recipe: Recipe,
    tokens: Sequence,
    clip: ClipTokens | None,
    num_rows: int,
    has_pixels: bool = True,
) -> dict[str, Any]:
    """Inputs of some rows, cut to what is supervised as the trainers cut them."""
    config = storm.config
    start, latent, end = config.latent_block_ids
    is_video = _video_columns(tokens, clip)
    prompt = torch.where(is_video, _video_token(config), _word(config))
    markers = tokens.latents > 0
    answer = torch.full((tokens.answer - markers,), _word(config))
    block = [start, *[latent] * tokens.latents, end] if markers else []
    input_ids = torch.cat([prompt, torch.tensor(block, dtype=torch.long), answer]).repeat(num_rows, 1)  # (B, S)
    is_of_clip = torch.arange(tokens.total) < (clip.video + clip.separators if clip else 0)
    labels = torch.full_like(input_ids, -100)
    labels[:, -len(answer) :] = input_ids[:, -len(answer) :]
    mask = torch.ones_like(input_ids)
    batch: dict[str, Any] = {"input_ids": input_ids, "labels": labels, "attention_mask": mask}
    # Positions of words: which they are does not matter here, and each backbone takes those of clips from other inputs.
    batch["position_ids"] = storm.backbone._prepare_position_ids_for_generation(input_ids, {"attention_mask": mask})
    if "mm_token_type_ids" in inspect.signature(storm.backbone.forward).parameters:
        types = nn.functional.pad(_VIDEO_TYPE * is_video, (0, tokens.total - len(is_video)))
        batch["mm_token_type_ids"] = types.repeat(num_rows, 1)
    batch |= _vision_inputs(clip, num_rows, config, has_pixels)
    batch |= _thought_inputs(storm, recipe, is_of_clip.repeat(num_rows, 1))
    return keep_supervised(batch)


def _video_columns(tokens: Sequence, clip: ClipTokens | None) -> torch.Tensor:
    """Mark the tokens of the clip in a prompt without its last token, `<|latent_start|>`."""
    is_video = torch.zeros(tokens.prompt - (tokens.latents > 0), dtype=torch.bool)
    if clip is not None:
        around, frame = clip.separators // clip.grids, clip.video // clip.grids
        for pair in range(clip.grids):
            first = around + pair * (around + frame)
            is_video[first : first + frame] = True
    return is_video


def _word(config: StormConfig) -> int:
    """A token that stands for itself."""
    special = {*config.vision_token_ids, *config.latent_block_ids, config.get_text_config().pad_token_id}
    return next(token_id for token_id in range(len(special) + 1) if token_id not in special)


def _video_token(config: StormConfig) -> int:
    return getattr(config.vlm_config, "video_token_id", None) or _word(config)


def _vision_inputs(
    clip: ClipTokens | None, num_rows: int, config: StormConfig, has_pixels: bool = True
) -> dict[str, Any]:
    """Pixels without data and a real grid, whose frames are as square as the number of their tokens allows."""
    if clip is None:
        return {}
    vlm_config: Any = config.vlm_config
    merge, frame = vlm_config.vision_config.spatial_merge_size, clip.video // clip.grids
    height = next(side for side in range(math.isqrt(frame), 0, -1) if frame % side == 0)
    grid = torch.tensor([[clip.grids, height * merge, frame // height * merge]])
    pixels = {"pixel_values_videos": torch.empty(num_rows * clip.patches, clip.patch_pixels)} if has_pixels else {}
    return {**pixels, "video_grid_thw": grid.repeat(num_rows, 1)}


def _thought_inputs(storm: StormForConditionalGeneration, recipe: Recipe, is_of_clip: torch.Tensor) -> dict[str, Any]:
    """Given latents in Stage I, the way back through the rollout, and the bottleneck if any row may be drawn for it."""
    if not recipe["num_latents"]:
        return {}
    latents = torch.empty(len(is_of_clip), recipe["num_latents"], storm.config.hidden_size)  # (B, K, D)
    inputs: dict[str, Any] = {}
    if recipe.stage == "grpo":
        is_given = torch.zeros(len(latents), dtype=torch.bool)
        inputs |= latent_arguments(LatentRecord(latents, latents, latents[..., 0], is_given), recipe["estimator"])
    elif recipe["halting"]:
        inputs["answer_every_step"] = True
    elif recipe.is_rollout:
        inputs["rollout_gradient"] = recipe.gradient
    else:
        inputs["forced_latents"] = latents
    if recipe["bottleneck_share"] and is_of_clip.any():
        inputs |= {"latent_bottleneck": torch.ones(len(latents), dtype=torch.bool), "clip_token_mask": is_of_clip}
    return inputs


def _passes(
    run: DryRun,
    model: nn.Module,
    storm: StormForConditionalGeneration,
    batch: dict[str, Any],
    recipe: Recipe,
    sharing: Sharing,
    clip_bytes: int = 0,
) -> StepMemory:
    """Run both passes. ZeRO divides a gradient as soon as it is there; without, one that accumulates is there before."""
    gc.collect()  # what goes later would hide what comes
    pixels = clip_bytes + sum(value.nbytes for name, value in batch.items() if name in _CLIP_INPUTS)
    held = run.now - pixels
    for parameter in model.parameters():
        if parameter.requires_grad and sharing.zero_stage:
            parameter.register_post_accumulate_grad_hook(lambda parameter: setattr(parameter, "grad", None))
        elif parameter.requires_grad and recipe["gradient_accumulation_steps"] > 1:
            parameter.grad = torch.empty_like(parameter)
    before, run.peak, at_decoder, latents = run.now, run.now, [], []
    storm.get_decoder().register_forward_pre_hook(lambda *inputs: at_decoder.append(run.peak))
    storm.model.register_forward_hook(lambda module, inputs, output: latents.append(output.latents))
    is_cast = recipe.uses_bf16 and not sharing.zero_stage  # DeepSpeed computes in the precision of the weights
    holds_cast = is_cast and recipe.stage != "grpo"
    with frozen_weights_cast(storm, torch.bfloat16) if holds_cast else nullcontext():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_cast):
            loss = _loss(model, batch)
        if "forced_latents" in batch:  # L_align, or the density of the score estimator
            loss = loss + latents[0].float().pow(2).mean()
        latents.clear()
        activations, forward, run.peak = run.now - before, run.peak - held, run.now
        loss.backward()
    return StepMemory(pixels, at_decoder[0] - held, activations, forward, run.peak - held)


def _loss(model: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
    if "answer_every_step" not in batch:
        return model(**batch, fused_lm_head=True).loss
    output = model(**batch, use_cache=False)
    return output.step_losses.mean() + output.halting_logits.mean()
