"""Variants that only benchmarks train: tokens that carry nothing, latents that were never aligned, the paper to the letter.

- `direct_equal`, `terse_equal`, `verbose_equal`: the demo's baselines with STORM's number of updates.
- `pause`: the same K slots, filled with one learned token instead of latents. `markers`: the two ends of the latent block alone.
- `answer_only`: Stage II without Stage I. `align_only`: Stage I alone.
- `naive`: targets as they are pooled on average over space, brought to unit size and not whitened.
- `paper`: raw targets pooled over the flat sequence, the squared error alone at weight 0.1, and hidden states fed back as they
  are, as in the paper, without a bottleneck; with the updates and the rates of STORM.
"""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import ProcessorMixin

from storm_hf.curriculum.reasoning import replace_reasoning
from storm_hf.demo import DemoFolder, DemoRecipe, Training, Variant, data
from storm_hf.demo.training import prepare_adapter
from storm_hf.demo.variants import storm_variant
from storm_hf.inputs.prompts import PromptEncoder, Row
from storm_hf.model import StormConfig
from storm_hf.model.processing_storm import LATENT_TOKENS
from storm_hf.training.flops import TokenCounts, attention_shape, count_parameters, training_flops
from storm_hf.training.thought_adapter import leave_to_thought_adapter
from storm_hf.training.trained_weights import freeze_vision


CONTROLS = ("pause", "answer_only", "paper")  # beside the variants of the demo in the table of worlds
PAPER = {
    "target_pooling": "sequence",
    "target_normalize": "none",
    "align_loss": "mse",
    "align_weight": 0.1,
}
NO_ROLLOUT = {"latent_token_id": None}  # placeholders are ordinary tokens with a learned embedding
_NUM_COUNTED = 64  # rows whose length stands for all


@dataclass(frozen=True)
class Placeholders(Variant):
    """A variant whose latent block holds ordinary tokens: K of them, or with `num_latents=0` the two markers alone."""

    @property
    def has_latents(self) -> bool:
        """False: nothing is rolled out."""
        return False

    def make_prompts(self, processor: ProcessorMixin, config: StormConfig) -> PromptEncoder:
        """Make an encoder that writes the block, which the model does not know as one."""
        config = copy.deepcopy(config)
        config.latent_token_id = processor.tokenizer.convert_tokens_to_ids(LATENT_TOKENS[1])
        return (PromptEncoder if self.num_latents else MarkersEncoder)(processor, config, self.num_latents)


@dataclass(frozen=True)
class MarkersEncoder(PromptEncoder):
    """Writes the two markers of the latent block with nothing between them."""

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Encode without a block and add the markers, on the right, where prompts end."""
        batch = super().__call__(rows)
        start_id, _, end_id = self.config.latent_block_ids
        markers = torch.tensor([[start_id, end_id]]).expand(len(rows), -1)
        added = {"input_ids": markers, "attention_mask": torch.ones_like(markers)}
        added["mm_token_type_ids"] = added["clip_token_mask"] = torch.zeros_like(markers)
        return batch | {name: torch.cat([batch[name], added[name]], dim=1) for name in added if name in batch}


def changed(
    variant: Variant,
    name: str,
    title: str,
    *,
    stage_one: Mapping[str, Any] | None = None,
    stage_two: Mapping[str, Any] | None = None,
) -> Variant:
    """Copy STORM under another name, with other fields of one or both of its stages."""
    assert variant.start is not None
    start = dataclasses.replace(variant.start, name=f"{name}_align", title=f"{title}, Stage I", **stage_one or {})
    return dataclasses.replace(variant, name=name, title=title, start=start, is_shown=False, **stage_two or {})


def scaled_to(variant: Variant, num_updates: int, name: str) -> Variant:
    """Copy a variant under another name, with so many updates in all, shared by its stages as before."""
    given = round(num_updates * variant.num_given / variant.num_updates)
    start = variant.start and scaled_to(variant.start, given, f"{name}_start")
    training = Training(num_updates - given, variant.training.learning_rate)
    return dataclasses.replace(variant, name=name, start=start, training=training)


def paper_variant(recipe: DemoRecipe) -> Variant:
    """Make the paper's targets, loss and feedback, without a bottleneck."""
    title, no_bottleneck = "The paper's targets and loss", {"bottleneck_share": 0.0}
    stage_one = {"settings": {**PAPER, **no_bottleneck}, "config": {"latent_projector": "identity"}}
    stage_two = {"settings": no_bottleneck}
    return changed(storm_variant(recipe), "paper", title, stage_one=stage_one, stage_two=stage_two)


def naive_variant(recipe: DemoRecipe) -> Variant:
    """Make STORM with naive targets."""
    storm = storm_variant(recipe)
    settings = {
        "target_normalize": "layernorm",
        "teacher_noise": recipe.teacher_noise,
        "bottleneck_share": recipe.bottleneck_share,
    }
    return changed(storm, "naive", "Naive targets", stage_one={"settings": settings})


def plain_variant(recipe: DemoRecipe, name: str, title: str, **fields: Any) -> Variant:
    """Make a variant without Stage I, with STORM's number of updates at Stage I's rate."""
    return Variant(name, title, _all_updates(recipe), **fields)


def placeholders(recipe: DemoRecipe, name: str, title: str, num_latents: int) -> Placeholders:
    """Make a plain variant with placeholders in its block."""
    return Placeholders(name, title, _all_updates(recipe), num_latents=num_latents, config=NO_ROLLOUT)


def controls(recipe: DemoRecipe) -> dict[str, Variant]:
    """Make every variant with STORM's number of updates, and STORM as the last."""
    storm, num_latents = storm_variant(recipe), recipe.num_latents
    title = "text, verbose" if recipe.wordings == "usual" else "text, sentences"
    assert storm.start is not None
    rows = (
        plain_variant(recipe, "direct_equal", "direct"),
        placeholders(recipe, "pause", "pause tokens", num_latents),
        placeholders(recipe, "markers", "markers only", 0),
        plain_variant(recipe, "answer_only", "Stage II only", num_latents=num_latents),
        dataclasses.replace(storm.start, name="align_only", title="Stage I only", training=_all_updates(recipe)),
        naive_variant(recipe),
        paper_variant(recipe),
        plain_variant(recipe, "terse_equal", "text, terse", chain="terse_chain"),
        plain_variant(recipe, "verbose_equal", title, chain=recipe.chain_in_sentences),
        storm,
    )
    return {variant.name: variant for variant in rows}


def _all_updates(recipe: DemoRecipe) -> Training:
    return Training(storm_variant(recipe).num_updates, recipe.trainings["align"].learning_rate)


def flops_per_update(folder: DemoFolder, recipe: DemoRecipe, variant: Variant) -> float:
    """Compute the model FLOPs of an update on a batch of average length; a latent counts as a position, rolled out or given.

    With a `bottleneck_share`, rows are read a second time without their clips. The vision tower is frozen and its features are
    cached: it costs nothing. See [`~storm_hf.training.flops.training_flops`].
    """
    stage_one = variant.stage_one or variant
    model, processor = data.load(folder.base, **stage_one.config)
    prepare_adapter(model, recipe, variant)
    is_prompt_frozen = model.config.thought_adapter is not None
    if is_prompt_frozen:
        leave_to_thought_adapter(model)
    freeze_vision(model)
    rows = data.dataset(folder, "train", with_thoughts=False)
    rows = rows.select(range(min(_NUM_COUNTED, len(rows))))
    rows = rows if variant.chain is None else replace_reasoning(rows, variant.chain, 0)
    prompts = variant.make_prompts(processor, model.config)
    answers = [
        len(ids) + 1 for ids in processor.tokenizer(list(rows["answer"]), add_special_tokens=False)["input_ids"]
    ]
    batch = prompts(list(rows))
    lengths = batch["attention_mask"].sum(dim=1) + torch.tensor(answers)
    clips = batch["input_ids"].eq(model.config.video_token_id or -1).sum(dim=1)
    again = (lengths - clips) * (variant.settings.get("bottleneck_share", 0) > 0)
    prompt = (batch["attention_mask"].sum(dim=1) - variant.num_latents) * is_prompt_frozen
    tokens = TokenCounts(
        detached=int(prompt.sum()),
        detached_pairs=int(prompt.square().sum()),
        decoder=int((lengths + again).sum()),
        decoder_pairs=int((lengths.square() + again.square()).sum()),
        supervised=sum(answers),
        latents=variant.num_latents * len(rows) if variant.has_latents else 0,
    )
    flops = training_flops(count_parameters(model), tokens, attention_shape(model.config))
    return flops * recipe.batch_size / len(rows)
