"""Tiny training runs: rows and a collator for any of the six backbones, without a processor or a video file.

A row is a number, and everything in a batch follows from the numbers of its rows. Answers differ in length.

Axes: B batch, S sequence, K latent steps, D hidden size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tests.tiny import EOS, PAD, tiny_inputs, tiny_storm, tiny_tokenizer

from storm_hf import StormAlignConfig, StormAlignTrainer, StormAnswerConfig, StormAnswerTrainer
from storm_hf.inputs.collator import append_answers
from storm_hf.inputs.prompts import pad_rows
from storm_hf.training.trainer import StormTrainer


NUM_LATENTS = 3
HIDDEN_SIZE = 32
PER_TOKEN = ("input_ids", "attention_mask", "mm_token_type_ids")
STAGES = ("align", "answer")
QUIET = {  # on one processor core, batches of two, every step logged, nothing else said or saved
    "per_device_train_batch_size": 2,
    "logging_steps": 1,
    "save_strategy": "no",
    "gradient_checkpointing": False,
    "use_cpu": True,
    "report_to": "none",
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
}
_OF_STAGE = {"align": (StormAlignConfig, StormAlignTrainer), "answer": (StormAnswerConfig, StormAnswerTrainer)}


def tiny_rows(num_rows: int = 10) -> Dataset:
    """Rows that a `TinyCollator` makes batches of."""
    return Dataset.from_dict({"number": list(range(num_rows))})


@dataclass(frozen=True)
class TinyCollator:
    """Makes batches for one kind of backbone, with targets for Stage I."""

    kind: str
    num_latents: int = NUM_LATENTS
    with_targets: bool = False

    def __call__(self, rows: Sequence[dict[str, int]]) -> dict[str, torch.Tensor]:
        numbers = [row["number"] for row in rows]
        prompts = [tiny_inputs(self.kind, (3 + number % 4,), self.num_latents, seed=number) for number in numbers]
        batch = append_answers(stack_prompts(prompts), [self.answer(number) for number in numbers], PAD)
        if self.with_targets:
            batch["target_trajectory"] = torch.stack([self.target(number) for number in numbers])
        return batch

    def answer(self, number: int) -> torch.Tensor:
        """One to three tokens and the end of the turn."""
        generator = torch.Generator().manual_seed(1000 + number)
        return torch.cat([torch.randint(5, 90, (1 + number % 3,), generator=generator), torch.tensor([EOS])])

    def target(self, number: int) -> torch.Tensor:
        """A target trajectory (K, D) of unit variance."""
        generator = torch.Generator().manual_seed(2000 + number)
        return torch.randn(self.num_latents, HIDDEN_SIZE, generator=generator)


@dataclass(frozen=True)
class WordsCollator(TinyCollator):
    """Batches with words that follow from the numbers of the rows, too."""

    def __call__(self, rows):
        batch = super().__call__(rows)
        words = [[[20 + row["number"] + step, 50 + step] for step in range(self.num_latents)] for row in rows]
        return {**batch, "step_words": torch.tensor(words)}


def plain_rows(num_rows: int = 7) -> Dataset:
    """Plain rows of three to seven tokens, as `encode_language` leaves them; the first two are not supervised."""
    rows = []
    for number in range(num_rows):
        generator = torch.Generator().manual_seed(3000 + number)
        tokens = torch.randint(5, 90, (3 + number % 5,), generator=generator).tolist()
        rows.append({"input_ids": tokens, "labels": [-100, -100, *tokens[2:]]})
    return Dataset.from_list(rows)


def stack_prompts(prompts: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Left-pad prompts to one batch and concatenate their videos."""
    batch = {name: torch.cat([prompt[name] for prompt in prompts]) for name in prompts[0] if name not in PER_TOKEN}
    for name in PER_TOKEN:
        if name in prompts[0]:
            padding = PAD if name == "input_ids" else 0
            batch[name] = pad_rows([prompt[name][0] for prompt in prompts], padding, side="left")
    return batch


def tiny_trainer(
    stage: str,
    kind: str,
    folder: Path | str,
    *,
    num_rows: int = 10,
    num_latents: int = NUM_LATENTS,
    model: Any = None,
    processing_class: Any = None,
    callbacks: list[Any] | None = None,
    peft_config: Any = None,
    language_dataset: Dataset | None = None,
    **config: Any,
) -> StormTrainer:
    """A trainer of one stage around a tiny model: two steps of batches of two, on one processor core, logging each."""
    config_class, trainer_class = _OF_STAGE[stage]
    defaults = {**QUIET, "max_steps": 2, "learning_rate": 1e-3, "lr_scheduler_type": "constant"}
    return trainer_class(
        model=model or tiny_storm(kind, num_latents=num_latents),
        args=config_class(str(folder), **{**defaults, **config}),
        train_dataset=tiny_rows(num_rows),
        processing_class=processing_class or tiny_tokenizer(),
        data_collator=TinyCollator(kind, num_latents, with_targets=stage == "align"),
        callbacks=callbacks,
        peft_config=peft_config,
        language_dataset=language_dataset,
    )


def logged(trainer: StormTrainer, name: str) -> list[float]:
    """Logged values of a run under a name, step by step."""
    return [entry[name] for entry in trainer.state.log_history if name in entry]
