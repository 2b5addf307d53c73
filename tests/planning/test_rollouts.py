"""Planned roll-outs of reinforcement against what `generate` really uses."""

import gc
from pathlib import Path

import pytest
import torch
from benchmarks.plan_accuracy import Case, batch, build, clip, vlm_config

from storm_hf.planning.backbone import Backbone
from storm_hf.planning.dry_run import LiveBytes
from storm_hf.planning.memory import Sharing
from storm_hf.planning.recipe import Recipe
from storm_hf.planning.rollouts import GenerationBatch
from storm_hf.planning.step import measure_step
from storm_hf.reinforce.noise import GaussianLatents, LatentSubspace, NoisyRollout


NUM_ROWS = 4


def recipe_of(**arguments):
    given = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8, "num_generations": 8, **arguments}
    return Recipe(Path("grpo"), "grpo", given, "none")


def test_sizes_are_those_of_the_trainer():
    assert GenerationBatch.of(recipe_of(), 1) == GenerationBatch(2, 16, 16, 8)
    assert GenerationBatch.of(recipe_of(donor_share=0.25), 1) == GenerationBatch(2, 16, 12, 8)
    assert GenerationBatch.of(recipe_of(donor_share=0.25, rewards=["latent_use"]), 1) == GenerationBatch(2, 16, 12, 8)
    assert GenerationBatch.of(recipe_of(steps_per_generation=4, num_iterations=3), 1) == GenerationBatch(1, 8, 8, 12)
    assert GenerationBatch.of(recipe_of(generation_batch_size=32), 2) == GenerationBatch(2, 16, 16, 8)


def test_all_rows_are_sampled_at_once_where_a_donor_may_be_missing():
    recipe = recipe_of(donor_share=0.25, rewards=["correct_answer", "donor_answer"])
    assert GenerationBatch.of(recipe, 1) == GenerationBatch(2, 16, 16, 8)


def measured(case, max_new_tokens):
    """Most that is in use while clips are encoded and rows answered, as `RolloutSampler` does it."""
    storm, inputs = build(case).eval(), batch(case)
    kept = {name: inputs[name] for name in ("input_ids", "attention_mask", "mm_token_type_ids")}
    prompt = {name: value[:, : case.tokens.prompt + case.tokens.latents + 1] for name, value in kept.items()}
    pixels, grid = inputs["pixel_values_videos"], inputs["video_grid_thw"]
    with torch.no_grad(), LiveBytes([*storm.parameters(), *storm.buffers(), *prompt.values(), grid, pixels]) as memory:
        features = storm.encode_video(pixel_values_videos=pixels, video_grid_thw=grid)
        memory.peak = memory.now
        rows = {name: value.repeat(NUM_ROWS, 1) for name, value in {**prompt, "video_grid_thw": grid}.items()}
        rows |= {name: torch.cat([value] * NUM_ROWS, dim=-2) for name, value in features.items()}
        policy = GaussianLatents(LatentSubspace(storm.config.hidden_size), 0.1)
        storm.generate(
            **rows,
            min_new_tokens=max_new_tokens,
            max_new_tokens=max_new_tokens,
            latent_intervention=NoisyRollout(policy),
            halting=False,
        )
        gc.collect()
        return memory.peak


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
def test_roll_outs_take_what_is_planned(kind):
    case = Case(kind=kind, numbers="float32", stage="II", has_clip=True)
    arguments = {
        "num_latents": case.tokens.latents,
        "latent_projector": "linear",
        "bf16": False,
        "dtype": "float32",
        "per_device_train_batch_size": NUM_ROWS,
        "gradient_accumulation_steps": 1,
        "num_generations": NUM_ROWS,
    }
    backbone = Backbone(kind, vlm_config(kind), tokens_around_frame=0 if kind == "qwen2_5_vl" else 7)
    recipe = Recipe(Path(kind), "grpo", arguments, kind)
    planned = measure_step(recipe, backbone, case.tokens, clip(case), Sharing()).memory
    assert planned.rollouts == pytest.approx(measured(case, case.tokens.answer - 1), rel=0.05)
