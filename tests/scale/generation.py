"""Answers of a sharded model, and of its saved checkpoint in one process."""

from pathlib import Path
from typing import Any

import torch
from tests.tiny import tiny_inputs
from tests.training.tiny_training import NUM_LATENTS

from storm_hf import StormForConditionalGeneration


def generation_inputs() -> dict[str, torch.Tensor]:
    """A prompt of two rows."""
    return tiny_inputs("qwen2_5_vl", num_latents=NUM_LATENTS)


def generation_settings(rank: int) -> dict[str, Any]:
    """Greedy, to a length that depends on the process."""
    return {"max_new_tokens": 3 + 2 * rank, "do_sample": False, "eos_token_id": None}


@torch.no_grad()
def compare_with_saved(folder: Path, num_processes: int = 2) -> tuple[bool, float]:
    """Load with plain `from_pretrained` what a job saved, and compare it with what the job generated.

    Args:
        folder (`Path`):
            Folder of a job that generates.
        num_processes (`int`, *optional*, defaults to `2`):
            How many processes took part.

    Returns:
        `tuple`: Whether every sequence of every process is the same, and the largest difference of any logit.
    """
    model = StormForConditionalGeneration.from_pretrained(folder / "saved").eval()
    logits = model(**generation_inputs(), use_cache=False).logits
    is_same, difference = True, 0.0
    for rank in range(num_processes):
        generated = torch.load(folder / f"generated-{rank}.pt")
        expected = model.generate(**generation_inputs(), **generation_settings(rank))
        is_same &= torch.equal(generated["sequences"], expected)
        difference = max(difference, (generated["logits"] - logits).abs().max().item())
    return is_same, difference
