"""Roll-outs of reinforcement without data: each clip is encoded once for its group, and a generation batch is answered in one piece.

A real answer comes token by token. Here the longest one is read at once behind its latents, with the cache that it ends with, which is
what most memory goes to.
"""

from dataclasses import dataclass
from typing import Any

import torch

from storm_hf.model import StormForConditionalGeneration
from storm_hf.planning.dry_run import DryRun
from storm_hf.planning.recipe import Recipe
from storm_hf.reinforce.config import num_donor_rollouts
from storm_hf.reinforce.rewards import donor_answer


_PIXELS = "pixel_values_videos"
_OF_TRAINING = ("labels", "states_to_keep", "latent_intervention", "forced_latents")


@dataclass(frozen=True)
class GenerationBatch:
    """Roll-outs of a process that are rewarded together.

    Args:
        num_groups (`int`):
            Number of questions.
        num_rows (`int`):
            Number of roll-outs.
        num_at_once (`int`):
            Most that are sampled at a time: those with latents of their own come before those that are fed a donor's. With the
            reward `donor_answer` none may find a donor, and all are sampled together.
        num_batches (`int`):
            Batches of passes that they are used for.
    """

    num_groups: int
    num_rows: int
    num_at_once: int
    num_batches: int

    @classmethod
    def of(cls, recipe: Recipe, num_processes: int) -> "GenerationBatch":
        """Read the sizes off a recipe, as TRL does."""
        size, whole = recipe["per_device_train_batch_size"], recipe["generation_batch_size"]
        steps = recipe["steps_per_generation"] or recipe["gradient_accumulation_steps"]
        if whole is not None:
            steps = max(whole // (size * num_processes), 1)
        num_rows, num_generations = size * steps, recipe["num_generations"]
        num_groups = -(-num_rows // num_generations)
        num_at_once = -(-num_rows * _most_of_group(recipe) // num_generations)
        return cls(num_groups, num_rows, num_at_once, steps * recipe["num_iterations"])


def _most_of_group(recipe: Recipe) -> int:
    """Return how many roll-outs of a group are sampled at a time, at most."""
    num_generations = recipe["num_generations"]
    if donor_answer.__name__ in (recipe["rewards"] or ()):
        return num_generations
    num_given = num_donor_rollouts(recipe["donor_share"], num_generations)
    return max(num_given, num_generations - num_given)


@dataclass(frozen=True, eq=False)
class Rollouts:
    """Figures of the roll-outs of a generation batch.

    Args:
        clips (`list[dict[str, torch.Tensor]]`):
            Encoded clip of each group, which stays until the batch was trained on.
        clip_bytes (`int`):
            Bytes of all of them.
        vision (`int`):
            Most that is in use while a clip is encoded, in bytes.
        peak (`int`):
            Most that is in use while answers are sampled, in bytes.
        flops (`int`):
            Model FLOPs, for each batch of passes.
    """

    clips: list[dict[str, torch.Tensor]]
    clip_bytes: int
    vision: int
    peak: int
    flops: int

    def encoded(self, batch: dict[str, Any], num_rows: int) -> dict[str, Any]:
        """Replace the pixels of a batch by the encoded clip of each row."""
        batch = {name: value for name, value in batch.items() if name != _PIXELS}
        names = list(self.clips[0])
        return batch | {name: torch.cat([self.clips[0][name]] * num_rows, dim=-2) for name in names}


@torch.no_grad()
def roll_out(
    run: DryRun,
    storm: StormForConditionalGeneration,
    size: GenerationBatch,
    clip: dict[str, Any],
    prompts: dict[str, Any],
) -> Rollouts:
    """Encode a clip for each group, and answer as many prompts as are answered at a time.

    Args:
        run ([`~storm_hf.planning.dry_run.DryRun`]):
            The run, open.
        storm ([`StormForConditionalGeneration`]):
            The model, which is put into evaluation mode meanwhile.
        size ([`GenerationBatch`]):
            Number of roll-outs.
        clip (`dict[str, torch.Tensor]`):
            Vision inputs of one clip; empty for words alone.
        prompts (`dict[str, torch.Tensor]`):
            Inputs of the prompts with their latents and the longest answers, `size.num_at_once` of them.
    """
    pixels = sum(value.nbytes for name, value in clip.items() if name == _PIXELS)
    held, flops = run.now - pixels, run.flops
    run.peak = run.now
    one = storm.encode_video(**clip) if clip else {}
    vision, of_vision = run.peak - held, (run.flops - flops) * size.num_groups
    clip.clear()
    clips = [one, *({name: value.clone() for name, value in one.items()} for _ in range(size.num_groups - 1))]
    clip_bytes = sum(value.nbytes for each in clips for value in each.values())
    rollouts = Rollouts(clips, clip_bytes, vision, 0, 0)
    flops, run.peak = run.flops, run.now
    storm.eval()
    asked = {name: value for name, value in prompts.items() if name not in _OF_TRAINING}
    storm(**rollouts.encoded(asked, size.num_at_once), use_cache=True, logits_to_keep=1)
    storm.train()
    of_answers = (run.flops - flops) * size.num_rows // size.num_at_once
    return Rollouts(clips, clip_bytes, vision, run.peak - held, (of_vision + of_answers) // size.num_batches)
