"""Accuracy of `storm plan`: planned beside measured memory, for steps of small models.

    python benchmarks/plan_accuracy.py

Each row takes two steps of AdamW with TRL's fused head. Measured are the bytes of all living tensors: what is held between the
passes ("kept"), and the most in the second step, weights included ("peak"). Planned is what the formulas of
`storm_hf.planning` say of the same sizes. Text prompts stand for video: the language model does not tell them apart. Tensors
are counted on the CPU; workspaces inside the kernels of a GPU are not.
"""

import argparse
import gc
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from peft import get_peft_model
from rich.console import Console
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText
from trl.trainer.utils import add_fused_lm_head

from storm_hf.model import StormConfig, StormForConditionalGeneration
from storm_hf.model.rollout_storm import RolloutGradient
from storm_hf.planning.layers import Layers, head_gradient_bytes, logits_bytes, vision_bytes
from storm_hf.planning.measure import LiveBytes
from storm_hf.planning.memory import Sharing, StepMemory, Weights, held_memory, peak_memory
from storm_hf.planning.passes import Adapter, Arithmetic, Sequence, parallel_pass, rollout_passes
from storm_hf.planning.shape import DecoderShape
from storm_hf.training.peft import default_lora, train_in_float32
from storm_hf.training.trainer import freeze_vision, keep_supervised


LATENT, LATENT_START, LATENT_END = 125, 126, 127
RANK = 4
NUMBERS = {"float32": Arithmetic(4, 4), "bf16": Arithmetic(4, 2), "bf16 weights": Arithmetic(2, 2)}
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
_VISION = {"depth": 2, "hidden_size": 64, "intermediate_size": 176, "num_heads": 4, "out_hidden_size": 96}
_KINDS: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": {
        "text": {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4}},
        "vision": {"patch_size": 14, "window_size": 112, "fullatt_block_indexes": [1]},
    },
    "qwen3_vl": {
        "text": {
            "head_dim": 24,
            "rope_parameters": {"rope_type": "default", "mrope_section": [4, 4, 4], "rope_theta": 1e4},
        },
        "vision": {"patch_size": 16, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]},
    },
}


@dataclass(frozen=True)
class Case:
    """A step to plan and to take."""

    kind: str = "qwen2_5_vl"
    numbers: str = "bf16"
    stage: str = "I"
    is_checkpointed: bool = False
    has_adapter: bool = False
    accumulation: int = 1
    tokens: Sequence = Sequence(prompt=320, latents=6, answer=9)

    def __str__(self) -> str:
        parts = [self.kind, self.numbers, f"Stage {self.stage}"]
        parts += ["checkpointed"] * self.is_checkpointed + ["LoRA"] * self.has_adapter
        return ", ".join(parts + [f"{self.accumulation} batches"] * (self.accumulation > 1))


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
    return AutoConfig.for_model(kind, text_config=text, vision_config=vision, tie_word_embeddings=False)


def build(case: Case) -> nn.Module:
    """Make the model of a case, on the CPU, as the trainers make theirs."""
    torch.manual_seed(0)
    ids = {"latent_start_token_id": LATENT_START, "latent_token_id": LATENT, "latent_end_token_id": LATENT_END}
    config = StormConfig(vlm_config=vlm_config(case.kind), num_latents=case.tokens.latents, **ids)
    storm: Any = StormForConditionalGeneration(config).train()
    freeze_vision(storm)
    if NUMBERS[case.numbers].weights == 2:
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
    block = torch.tensor([LATENT_START, *[LATENT] * tokens.latents, LATENT_END])
    input_ids = torch.cat([prompt, block, answer])[None]
    labels = torch.full_like(input_ids, -100)
    labels[:, -len(answer) :] = answer
    types = {"attention_mask": torch.ones_like(input_ids), "mm_token_type_ids": torch.zeros_like(input_ids)}
    inputs = keep_supervised({"input_ids": input_ids, "labels": labels, **types})
    if case.stage == "I":
        return {**inputs, "forced_latents": torch.randn(1, tokens.latents, _TEXT["hidden_size"])}
    return {**inputs, "rollout_gradient": GRADIENTS[case.stage]}


def measure(case: Case) -> Bytes:
    """Take two steps; the first makes the optimizer's states."""
    model, inputs = build(case), batch(case)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    there = [*model.parameters(), *model.buffers(), *(value for value in inputs.values() if torch.is_tensor(value))]
    is_cast = NUMBERS[case.numbers].operands == 2
    latents: list[torch.Tensor] = []
    body = next(module for module in model.modules() if hasattr(module, "latent_projector"))
    body.register_forward_hook(lambda module, args, output: latents.append(output.latents))
    with LiveBytes(there) as memory:
        for step in range(2):
            for _ in range(case.accumulation):
                before = memory.now
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_cast):
                    loss = model(**inputs, fused_lm_head=True).loss
                loss = loss + latents.pop().float().pow(2).mean()  # in the place of L_align
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
        return Bytes(weights, sum(state.nbytes for state in states), kept, weights + memory.peak)


def plan(case: Case) -> Bytes:
    """Say the same by formula."""
    tokens, numbers = case.tokens, NUMBERS[case.numbers]
    model = build(case)
    total = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    shape = DecoderShape.of(vlm_config(case.kind))
    trained_bytes = 4 if case.has_adapter else numbers.weights
    adapter = Adapter(RANK, trained_bytes) if case.has_adapter else None
    held = held_memory(Weights(total, trained, numbers.weights, trained_bytes), Sharing(), trained_bytes)
    layers = Layers(shape, numbers, adapter, case.is_checkpointed)
    pieces = parallel_pass(tokens) if case.stage == "I" else rollout_passes(tokens, GRADIENTS[case.stage])
    kept_in_backward, workspace = layers.backward(pieces, tokens.total)
    step = StepMemory(
        pixels=0,
        vision=0,
        activations=layers.activations(pieces, tokens.total),
        kept_in_backward=kept_in_backward,
        weight_copies=layers.weight_copies(pieces),
        cache=layers.cache(pieces),
        workspace=workspace + layers.matrix_workspace,
        logits=logits_bytes(tokens.answer, shape, numbers),
        update=head_gradient_bytes(shape, numbers.weights, not case.has_adapter, is_tied=False),
    )
    kept = step.activations + (0 if case.is_checkpointed else step.weight_copies)
    peak = peak_memory(held, step, case.accumulation > 1, case.is_checkpointed, len(pieces) > 1)
    return Bytes(held.weights, held.optimizer, kept, peak)


def vision_peaks(kind: str, numbers: str, grid: tuple[int, int, int] = (4, 16, 16)) -> tuple[int, int]:
    """Planned and measured peak of a frozen vision tower alone."""
    config, arithmetic = vlm_config(kind), NUMBERS[numbers]
    model: Any = AutoModelForImageTextToText.from_config(config).requires_grad_(False)
    if arithmetic.weights == 2:
        model.to(torch.bfloat16)
    vision, grid_thw = config.vision_config, torch.tensor([grid])
    patches, patch_pixels = int(grid_thw.prod()), 3 * vision.temporal_patch_size * vision.patch_size**2
    pixels = torch.zeros(patches, patch_pixels)
    there = [*model.parameters(), *model.buffers(), pixels, grid_thw]
    with LiveBytes(there) as memory, torch.autocast("cpu", dtype=torch.bfloat16, enabled=arithmetic.casts):
        model.get_video_features(pixel_values_videos=pixels, video_grid_thw=grid_thw)
    planned = vision_bytes(patches, patch_pixels, vision.hidden_size, vision.intermediate_size, arithmetic)
    return planned, memory.peak


def cases() -> Iterator[Case]:
    """Both stages in every arithmetic, with and without checkpointing, then the cheaper gradients and LoRA."""
    for kind, numbers, stage, checkpointed in product(_KINDS, NUMBERS, ("I", "II"), (False, True)):
        yield Case(kind, numbers, stage, checkpointed)
    for stage, checkpointed in product(list(GRADIENTS)[1:], (False, True)):
        yield Case(stage=stage, is_checkpointed=checkpointed)
    for numbers, stage, checkpointed in product(("bf16", "bf16 weights"), ("I", "II"), (False, True)):
        yield Case(numbers=numbers, stage=stage, is_checkpointed=checkpointed, has_adapter=True)
    yield Case(stage="II", is_checkpointed=True, accumulation=2)


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
    for kind, numbers in product(_KINDS, NUMBERS):
        planned_vision, real_vision = vision_peaks(kind, numbers)
        ratio = planned_vision / real_vision
        out.print(f"| {kind}, {numbers}, vision tower alone | | | {real_vision >> 10} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
