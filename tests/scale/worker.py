"""One process of a launch: `python -m tests.scale.worker JOBS.json`, alone or under `accelerate launch`.

A folder holds `model/`, the checkpoint that every job starts from, and gets one folder per job.
"""

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import yaml
from accelerate.utils import FullyShardedDataParallelPlugin, patch_environment
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from tests.scale.generation import generation_inputs, generation_settings
from tests.scale.job import GLOBAL_BATCH, NUM_STEPS, Job, Outcome, read_jobs
from tests.scale.launch import CONFIGS
from tests.tiny import PAD, tiny_tokenizer
from tests.training.processes import KillAfterStep
from tests.training.tiny_training import NUM_LATENTS, PER_TOKEN, TinyCollator, WordsCollator, logged, tiny_rows
from torch import nn
from transformers import set_seed
from transformers.integrations import is_deepspeed_zero3_enabled

from storm_hf import (
    StormAlignConfig,
    StormAlignTrainer,
    StormAnswerConfig,
    StormAnswerTrainer,
    StormForConditionalGeneration,
)
from storm_hf.training.peft import default_lora
from storm_hf.training.rank_consistency import is_sharded
from storm_hf.training.trainer import StormTrainer


VIDEO_INPUTS = ("pixel_values_videos", "video_grid_thw", "second_per_grid_ts")
_OF_STAGE = {"align": (StormAlignConfig, StormAlignTrainer), "answer": (StormAnswerConfig, StormAnswerTrainer)}


class TextOnlyCollator(TinyCollator):
    """Batches whose prompts have padding in place of their video."""

    def __call__(self, rows: Any) -> dict[str, torch.Tensor]:
        batch = super().__call__(rows)
        is_video = batch["mm_token_type_ids"] != 0
        for name in PER_TOKEN:
            batch[name] = batch[name].masked_fill(is_video, PAD if name == "input_ids" else 0)
        return {name: value for name, value in batch.items() if name not in VIDEO_INPUTS}


def make_trainer(job: Job, folder: Path) -> StormTrainer:
    """Configure first and load then: under ZeRO-3 a model is cut in pieces while it is loaded."""
    config_class, trainer_class = _OF_STAGE[job.stage]
    rank = int(os.environ.get("RANK", "0"))
    args = config_class(
        str(folder / job.name),
        per_device_train_batch_size=job.batch_size,
        gradient_accumulation_steps=job.accumulate,
        gradient_checkpointing=job.checkpointing,
        bottleneck_share=float(job.narrow),
        **({"step_words_weight": 0.5} if job.words else {}),
        max_steps=NUM_STEPS,
        learning_rate=1e-2 if job.lora else 1e-3,
        lr_scheduler_type="constant",
        logging_steps=1,
        save_strategy="steps" if job.save_steps else "no",
        save_steps=job.save_steps or NUM_STEPS,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    model = StormForConditionalGeneration.from_pretrained(folder / "model")
    num_latents = job.latents_of_rank[rank] if job.latents_of_rank else NUM_LATENTS
    collator = TextOnlyCollator if rank == job.text_only_rank else WordsCollator if job.words else TinyCollator
    is_victim = job.kill_at_step and rank == int(os.environ.get("WORLD_SIZE", "1")) - 1
    set_seed(0)  # draws the adapter
    return trainer_class(
        model=model,
        args=args,
        train_dataset=tiny_rows(GLOBAL_BATCH * NUM_STEPS),
        processing_class=tiny_tokenizer(),
        data_collator=collator("qwen2_5_vl", num_latents, with_targets=job.stage == "align"),
        callbacks=[KillAfterStep(job.kill_at_step)] if is_victim else None,
        peft_config=default_lora(model, r=4, dropout=0.0) if job.lora else None,
    )


def run(job: Job, folder: Path) -> None:
    """Do one job; the first process leaves its outcome."""
    trainer = make_trainer(job, folder)
    if job.fully_shard:
        outcome = train_sharded(trainer)
    else:
        trainer.train(resume_from_checkpoint=bool(job.save_steps))
        outcome = Outcome(logged(trainer, "loss"), logged(trainer, "grad_norm"))
    if job.checkpointing:
        assert_checkpointing_is_not_reentrant(trainer.model)
    if job.generates:
        generate_and_save(trainer, folder / job.name)
    if trainer.is_world_process_zero():
        outcome.write(folder / job.name)


def train_sharded(trainer: StormTrainer) -> Outcome:
    """The plain loop of FSDP2: step by step the trainer's own batches and its own loss."""
    model, args = trainer.model, trainer.args
    if args.activation_checkpointing:
        model.activation_checkpointing_enable(args.activation_checkpointing_kwargs)
    shard_as_accelerate(model)
    assert is_sharded(model)
    trainer.current_gradient_accumulation_steps = 1
    optimizer = trainer.create_optimizer()
    losses, norms = [], []
    for batch in trainer.get_train_dataloader():
        num_items = trainer._get_num_items_in_batch([batch], args.device)
        loss = trainer.compute_loss(model.train(), batch, num_items_in_batch=num_items)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), args.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(trainer.accelerator.gather(loss.detach()).mean().item())
        norms.append(norm.full_tensor().item())
    return Outcome(losses, norms)


def shard_as_accelerate(model: nn.Module) -> None:
    """Shard as accelerate does with `fsdp2.yaml` on GPUs; on a processor it would train with DDP instead."""
    settings = yaml.safe_load((CONFIGS / "fsdp2.yaml").read_text())["fsdp_config"]
    with patch_environment(**settings):
        plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    accelerator = SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=plugin),
        device=torch.device("cpu"),
        torch_device_mesh=None,
        mixed_precision="no",
        is_main_process=torch.distributed.get_rank() == 0,
    )
    fsdp2_prepare_model(accelerator, model)


def assert_checkpointing_is_not_reentrant(model: nn.Module) -> None:
    """The gradient through captured keys and values is lost in reentrant checkpointing, which TRL turns on for PEFT + ZeRO-3."""
    layers = [module for module in model.modules() if hasattr(module, "_gradient_checkpointing_func")]
    assert layers
    assert not any(layer._gradient_checkpointing_func.keywords["use_reentrant"] for layer in layers)


@torch.no_grad()
def generate_and_save(trainer: StormTrainer, folder: Path) -> None:
    """Answer with another number of tokens on each process, then save the model."""
    model, rank = trainer.model.eval(), trainer.accelerator.process_index
    assert is_deepspeed_zero3_enabled()
    sequences = model.generate(**generation_inputs(), **generation_settings(rank))
    logits = trainer.model_wrapped(**generation_inputs(), use_cache=False).logits
    torch.save({"sequences": sequences, "logits": logits}, folder / f"generated-{rank}.pt")
    trainer.save_model(str(folder / "saved"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    jobs = Path(sys.argv[1])
    for job in read_jobs(jobs):
        run(job, jobs.parent)
