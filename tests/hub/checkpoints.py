"""Tiny checkpoints to publish: a whole STORM, and an adapter of it."""

from pathlib import Path

import torch
from peft import get_peft_model
from safetensors.torch import save_file

from storm_hf.checkpoints.adapter import save_storm_config
from storm_hf.model import StormForConditionalGeneration, storm_processor
from storm_hf.training.peft import default_lora


NUM_LATENTS = 2


def write_checkpoint(folder: Path, plain: Path) -> Path:
    """Save a STORM around a plain checkpoint, with its processor and what a run of training leaves beside it."""
    model = StormForConditionalGeneration.from_backbone(str(plain), NUM_LATENTS)
    model.save_pretrained(folder)
    storm_processor(str(plain), num_latents=NUM_LATENTS).save_pretrained(folder)
    save_file({"mean": torch.zeros(8)}, folder / "whitening.safetensors")
    return folder


def leave_what_training_leaves(folder: Path) -> None:
    """Write what a trainer keeps for itself; the bytes are any."""
    for name in ("training_args.bin", "checkpoint-2/optimizer.pt", "checkpoint-2/trainer_state.json", "runs/events"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"/home/somebody")


def write_adapter(folder: Path, base: str, model_folder: Path, seed: int = 0) -> Path:
    """Save a LoRA adapter of a STORM as the trainers do; `base` is the name that it says its base has."""
    model = StormForConditionalGeneration.from_pretrained(model_folder)
    model.name_or_path = base
    torch.manual_seed(seed)
    adapted = get_peft_model(model, default_lora(model, r=2))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:  # zero before training: the adapter would do nothing
            torch.nn.init.normal_(weight, std=0.5)
    adapted.save_pretrained(folder, save_embedding_layers=False)
    save_storm_config(model.config, folder)
    storm_processor(str(model_folder), num_latents=NUM_LATENTS).save_pretrained(folder)
    return folder
