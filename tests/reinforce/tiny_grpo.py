"""Tiny runs of reinforcement on real video files, on one processor core."""

from pathlib import Path
from typing import Any

from tests.training.tiny_videos import load_tiny

from storm_hf import StormGRPOConfig, StormGRPOTrainer


NUM_LATENTS = 3
SETTINGS = {
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "num_generations": 4,
    "max_completion_length": 3,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
    "gradient_checkpointing": False,
    "use_cpu": True,
    "bf16": False,
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
    "latent_noise": 0.5,
}


def by_letters(completions: list[str], **columns: Any) -> list[float]:
    """A reward that a random model gets in different amounts."""
    return [float(sum(map(ord, completion)) % 5) for completion in completions]


def tiny_grpo(
    checkpoint: Path,
    rows: Any,
    folder: Path,
    *,
    model: Any = None,
    rewards: Any = by_letters,
    peft_config: Any = None,
    target_trajectory: Any = None,
    callbacks: Any = None,
    eval_dataset: Any = None,
    **settings: Any,
) -> StormGRPOTrainer:
    """A trainer of a tiny Qwen2.5-VL."""
    plain, processor = load_tiny(checkpoint, NUM_LATENTS)
    return StormGRPOTrainer(
        model=plain if model is None else model,
        reward_funcs=rewards,
        args=StormGRPOConfig(str(folder), **{**SETTINGS, **settings}),
        train_dataset=rows,
        eval_dataset=eval_dataset,
        processing_class=processor,
        callbacks=callbacks,
        peft_config=peft_config,
        target_trajectory=target_trajectory,
    )
