"""Accuracy of `storm plan`: planned beside measured memory, for steps of small models.

    python benchmarks/plan_accuracy.py

Each row takes two steps of AdamW with TRL's fused head. Measured are the bytes of all living tensors: what is held between the
passes ("kept"), and the most in the second step, weights included ("peak"). Planned is the dry run of `storm_hf.planning`, on
tensors without data, of the same sizes. Tensors are counted on the CPU; workspaces inside the kernels of a GPU are not.
"""

import argparse
import gc
import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from rich.console import Console
from torch import nn
from transformers import AutoConfig
from trl.trainer.utils import add_fused_lm_head

from storm_hf.model import StormConfig, StormForConditionalGeneration
from storm_hf.model.rollout_storm import RolloutGradient
from storm_hf.planning.backbone import Backbone, ClipTokens
from storm_hf.planning.dry_run import LiveBytes
from storm_hf.planning.memory import Sharing, held_memory
from storm_hf.planning.recipe import Recipe
from storm_hf.planning.step import Sequence, measure_step
from storm_hf.training.peft import default_lora, train_in_float32
from storm_hf.training.precision import frozen_weights_cast
from storm_hf.training.trained_weights import freeze_vision
from storm_hf.training.trainer import keep_supervised


LATENT_START, LATENT, LATENT_END = 125, 126, 127
VIDEO = 101
RANK = 4
NUMBERS = ("float32", "bf16", "bf16 weights")
GRID = (4, 16, 16)  # of the clip, in patches
FRAME_TOKENS = 64
GRADIENTS = {
    "II": RolloutGradient(),
    "II detach_prompt": RolloutGradient(detach_prompt=True),
    "II truncate_steps=2": RolloutGradient(truncate_steps=2),
    "II jacobi_sweeps=2": RolloutGradient(jacobi_sweeps=2),
}
_TEXT = {"vocab_size": 128, "hidden_size": 96, "intermediate_size": 208, "num_hidden_layers": 4}
_HEADS = {
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}
_IDS = {"image_token_id": 100, "video_token_id": VIDEO, "vision_start_token_id": 102, "vision_end_token_id": 103}
_VISION = {"depth": 2, "hidden_size": 64, "intermediate_size": 176, "num_heads": 4, "out_hidden_size": 96}
_KINDS: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": {
        "text": {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4}},
        "around_frame": 0,
        "vision": {"patch_size": 14, "window_size": 112, "fullatt_block_indexes": [1]},
    },
    "qwen3_vl": {
        "text": {
            "head_dim": 24,
            "rope_parameters": {"rope_type": "default", "mrope_section": [4, 4, 4], "rope_theta": 1e4},
        },
        "around_frame": 7,
        "vision": {"patch_size": 16, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]},
    },
}


@dataclass(frozen=True)
class Case:
    """A step to plan and to take. Whole models with weights in 16 bits are trained under ZeRO, which divides gradients at once."""

    kind: str = "qwen2_5_vl"
    numbers: str = "bf16"
    stage: str = "I"
    is_checkpointed: bool = False
    has_adapter: bool = False
    has_clip: bool = False
    has_bottleneck: bool = False
    accumulation: int = 1
    tokens: Sequence = Sequence(prompt=320, latents=6, answer=9)

    def __str__(self) -> str:
        parts = [self.kind, self.numbers, f"Stage {self.stage}"]
        parts += ["checkpointed"] * self.is_checkpointed + ["LoRA"] * self.has_adapter
        parts += ["clip"] * self.has_clip + ["bottleneck"] * self.has_bottleneck
        return ", ".join(parts + [f"{self.accumulation} batches"] * (self.accumulation > 1))

    @property
    def is_divided(self) -> bool:
        """True if gradients are divided among processes as soon as they are there."""
        return self.numbers == "bf16 weights" and not self.has_adapter


@dataclass(frozen=True)
class Bytes:
    """Bytes of weights, of optimizer states, kept between the passes, and of the peak."""

    weights: int
    optimizer: int
    kept: int
    peak: int


def vlm_config(kind: str) -> Any:
    """Configure a backbone of four layers."""
    parts = _KINDS[kind]
    text, vision = {**_TEXT, **_HEADS, **parts["text"]}, {**_VISION, **parts["vision"]}
    return AutoConfig.for_model(kind, text_config=text, vision_config=vision, tie_word_embeddings=False, **_IDS)


def build(case: Case) -> nn.Module:
    """Make the model of a case, on the CPU, as the trainers make theirs."""
    torch.manual_seed(0)
    ids = {"latent_start_token_id": LATENT_START, "latent_token_id": LATENT, "latent_end_token_id": LATENT_END}
    config = StormConfig(vlm_config=vlm_config(case.kind), num_latents=case.tokens.latents, **ids)
    storm: Any = StormForConditionalGeneration(config).train()
    freeze_vision(storm)
    if case.numbers == "bf16 weights":
        storm.to(torch.bfloat16)
    add_fused_lm_head(storm)
    model: Any = storm
    if case.has_adapter:
        model = get_peft_model(storm, default_lora(storm, r=RANK, dropout=0.0))
        train_in_float32(model, {})
    if case.is_checkpointed:
        storm.activation_checkpointing_enable({"use_reentrant": False})
        if case.has_adapter:
            model.enable_input_require_grads()
    return model


def batch(case: Case) -> dict[str, Any]:
    """One row, cut to what is supervised as the trainers cut it."""
    tokens = case.tokens
    prompt, answer = torch.arange(tokens.prompt - 1) % 90 + 5, torch.arange(tokens.answer - 1) % 90 + 5
    if case.has_clip:
        prompt = torch.cat([torch.tensor(clip_ids(case.kind)), prompt])[: tokens.prompt - 1]
    block = torch.tensor([LATENT_START, *[LATENT] * tokens.latents, LATENT_END])
    input_ids = torch.cat([prompt, block, answer])[None]
    labels = torch.full_like(input_ids, -100)
    labels[:, -len(answer) :] = answer
    types = {"attention_mask": torch.ones_like(input_ids), "mm_token_type_ids": 2 * (input_ids == VIDEO).int()}
    inputs = keep_supervised({"input_ids": input_ids, "labels": labels, **types})
    if case.has_clip:
        vision = vlm_config(case.kind).vision_config
        num_pixels = 3 * vision.temporal_patch_size * vision.patch_size**2
        inputs |= {
            "pixel_values_videos": torch.zeros(math.prod(GRID), num_pixels),
            "video_grid_thw": torch.tensor([GRID]),
        }
    if case.has_bottleneck:
        is_of_clip = torch.arange(input_ids.shape[1])[None] < len(clip_ids(case.kind))
        inputs |= {"latent_bottleneck": torch.tensor([True]), "clip_token_mask": is_of_clip}
    if case.stage == "I":
        return {**inputs, "forced_latents": torch.randn(1, tokens.latents, _TEXT["hidden_size"])}
    return {**inputs, "rollout_gradient": GRADIENTS[case.stage]}


def clip_ids(kind: str) -> list[int]:
    """Tokens of the clip: in one piece, or with a time before each two frames."""
    around = _KINDS[kind]["around_frame"]
    frames = [token for _ in range(GRID[0]) for token in (*[20] * around, *[VIDEO] * FRAME_TOKENS)]
    return [102, *frames, 103]


def measure(case: Case) -> Bytes:
    """Take two steps; the first makes the optimizer's states."""
    model, inputs = build(case), batch(case)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    pixels = inputs.get("pixel_values_videos", torch.empty(0)).nbytes
    there = [*model.parameters(), *model.buffers(), *(value for value in inputs.values() if torch.is_tensor(value))]
    is_cast = case.numbers != "float32" and not case.is_divided
    for parameter in trained if case.is_divided else ():
        parameter.register_post_accumulate_grad_hook(lambda parameter: setattr(parameter, "grad", None))
    latents: list[torch.Tensor] = []
    body = next(module for module in model.modules() if hasattr(module, "latent_projector"))
    body.register_forward_hook(lambda module, args, output: latents.append(output.latents))
    with LiveBytes(there) as memory:
        for step in range(2):
            for _ in range(case.accumulation):
                before = memory.now
                with frozen_weights_cast(model, torch.bfloat16) if is_cast else nullcontext():
                    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_cast):
                        loss = model(**inputs, fused_lm_head=True).loss
                    own = latents.pop()
                    if case.stage == "I":
                        loss = loss + own.float().pow(2).mean()  # in the place of L_align
                    del own
                    gc.collect()
                    kept = memory.now - before
                    loss.backward()
                del loss
            if step == 0:
                optimizer.step()
                optimizer.zero_grad()
                memory.peak = memory.now
        weights = sum(parameter.nbytes for parameter in model.parameters())
        states = [value for state in optimizer.state.values() for value in state.values() if value.ndim]
        return Bytes(weights, sum(state.nbytes for state in states), kept, weights + pixels + memory.peak)


def plan(case: Case) -> Bytes:
    """Plan the same step."""
    gradient = GRADIENTS.get(case.stage, RolloutGradient())
    arguments = {
        "num_latents": case.tokens.latents,
        "latent_projector": StormConfig.latent_projector,
        "bf16": case.numbers != "float32",
        "dtype": "bfloat16" if case.numbers == "bf16 weights" else "float32",
        "gradient_checkpointing": case.is_checkpointed,
        "gradient_accumulation_steps": case.accumulation,
        "per_device_train_batch_size": 1,
        "bottleneck_share": float(case.has_bottleneck),
        "use_peft": case.has_adapter,
        "lora_r": RANK,
        "lora_dropout": 0.0,
        "detach_prompt": gradient.detach_prompt,
        "truncate_steps": gradient.truncate_steps,
        "jacobi_sweeps": gradient.jacobi_sweeps,
    }
    recipe = Recipe(Path(case.kind), "align" if case.stage == "I" else "answer", arguments, case.kind)
    sharing = Sharing(zero_stage=2 if case.is_divided else 0)
    around = _KINDS[case.kind]["around_frame"]
    backbone = Backbone(case.kind, vlm_config(case.kind), tokens_around_frame=around)
    step = measure_step(recipe, backbone, case.tokens, clip(case) if case.has_clip else None, sharing)
    optimizer = 0 if case.is_divided else held_memory(step.weights, sharing).optimizer
    passes = max(step.memory.forward, step.memory.backward)
    return Bytes(step.weights.size, optimizer, step.memory.activations, step.weights.size + optimizer + passes)


def clip(case: Case) -> ClipTokens:
    """Say how large the clip is."""
    vision = vlm_config(case.kind).vision_config
    num_pixels = 3 * vision.temporal_patch_size * vision.patch_size**2
    separators = len(clip_ids(case.kind)) - GRID[0] * FRAME_TOKENS
    return ClipTokens(math.prod(GRID), GRID[0], GRID[0] * FRAME_TOKENS, separators, num_pixels)


def cases() -> Iterator[Case]:
    """Both stages in every arithmetic, with and without checkpointing, then the cheaper gradients, LoRA, and clips."""
    for kind, numbers, stage, checkpointed in product(_KINDS, NUMBERS, ("I", "II"), (False, True)):
        yield Case(kind, numbers, stage, checkpointed)
    for stage, checkpointed in product(list(GRADIENTS)[1:], (False, True)):
        yield Case(stage=stage, is_checkpointed=checkpointed)
    for numbers, stage, checkpointed in product(("bf16", "bf16 weights"), ("I", "II"), (False, True)):
        yield Case(numbers=numbers, stage=stage, is_checkpointed=checkpointed, has_adapter=True)
    yield Case(stage="II", is_checkpointed=True, accumulation=2)
    for kind, stage, bottleneck in product(_KINDS, ("I", "II"), (False, True)):
        yield Case(kind, stage=stage, is_checkpointed=True, has_clip=True, has_bottleneck=bottleneck)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt-tokens", type=int, default=320)
    tokens = replace(Case().tokens, prompt=parser.parse_args().prompt_tokens)
    torch.set_num_threads(1)
    out = Console(soft_wrap=True, highlight=False)
    out.print("| step | kept, KiB | planned / measured | peak, KiB | planned / measured |\n|---|---|---|---|---|")
    for case in cases():
        case = replace(case, tokens=tokens)
        planned, real = plan(case), measure(case)
        kept, peak = planned.kept / real.kept, planned.peak / real.peak
        out.print(f"| {case} | {real.kept >> 10} | {kept:.2f} | {real.peak >> 10} | {peak:.2f} |")


if __name__ == "__main__":
    main()
