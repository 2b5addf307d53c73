"""Variants of the demo: one table, whose rows are trained from the same base and tested on the same clips.

base               captions of clips and of thought videos: a random backbone learns to see
direct             answers at once
chain_of_thought   writes what each step changes and the state after it in sentences, then answers
terse_chain        writes one word a step, then answers
align              Stage I
storm              Stage II, from the weights of Stage I
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from transformers import ProcessorMixin

from storm_hf.demo.recipe import DemoRecipe, Training
from storm_hf.inputs.prompts import PromptEncoder
from storm_hf.model import StormConfig


Stage = Literal["base", "align", "answer"]

TITLES = {
    "direct": "Direct answer",
    "chain_of_thought": "Chain of thought, in sentences",
    "terse_chain": "Terse chain, one word a step",
    "align": "STORM after Stage I",
    "storm": "STORM",
}


@dataclass(frozen=True)
class Variant:
    """One training run, and the form of its prompts.

    Args:
        name (`str`):
            Name of its folder. Two variants of one demo must not share it.
        title (`str`):
            Title in tables and progress bars.
        training ([`~storm_hf.demo.recipe.Training`]):
            Number of updates and learning rate.
        stage (`str`, *optional*, defaults to `"answer"`):
            `"base"` trains a random model on captions, `"align"` is Stage I, `"answer"` trains on answers alone.
        start ([`Variant`], *optional*):
            Variant whose weights it starts from, by default the base.
        num_latents (`int`, *optional*, defaults to `0`):
            Number K of latent steps before the answer.
        chain (`str`, *optional*):
            Column with a text that is written before the answer.
        settings (`Mapping[str, Any]`, *optional*):
            Further arguments of the trainer; see [`StormAlignConfig`] and [`StormAnswerConfig`].
        config (`Mapping[str, Any]`, *optional*):
            Fields of [`StormConfig`] instead of those that it starts with.
        is_shown (`bool`, *optional*, defaults to `False`):
            Whether the page shows its latents: what they resemble is measured, and a gallery is saved beside the model.
    """

    name: str
    title: str
    training: Training
    stage: Stage = "answer"
    start: "Variant | None" = None
    num_latents: int = 0
    chain: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    is_shown: bool = False

    @property
    def num_given(self) -> int:
        """Updates of the variants that it starts from."""
        return 0 if self.start is None else self.start.num_updates

    @property
    def num_updates(self) -> int:
        """Updates in all, those of the variants that it starts from included."""
        return self.num_given + self.training.num_updates

    @property
    def lineage(self) -> tuple["Variant", ...]:
        """The variants that are trained one after the other, itself last; without the base that all start from."""
        return (*(() if self.start is None else self.start.lineage), self)

    @property
    def has_latents(self) -> bool:
        """True if a rollout comes before the answer."""
        return self.num_latents > 0

    @property
    def stage_one(self) -> "Variant | None":
        """The variant whose targets the latents were aligned with; None without Stage I."""
        if self.stage == "align":
            return self
        return None if self.start is None else self.start.stage_one

    def make_prompts(self, processor: ProcessorMixin, config: StormConfig) -> PromptEncoder:
        """Make the encoder of its questions."""
        return PromptEncoder(processor, config, self.num_latents)


def demo_variants(recipe: DemoRecipe) -> dict[str, Variant]:
    """Make the table of the demo, by name."""
    trainings, storm = recipe.trainings, storm_variant(recipe)
    direct = Variant("direct", TITLES["direct"], trainings["direct"])
    columns = {"chain_of_thought": recipe.chain_in_sentences, "terse_chain": "terse_chain"}
    chains = [Variant(name, TITLES[name], trainings[name], chain=column) for name, column in columns.items()]
    assert storm.start is not None
    return {variant.name: variant for variant in (base_variant(recipe), direct, *chains, storm.start, storm)}


def base_variant(recipe: DemoRecipe) -> Variant:
    """Make the row of the base, which all others start from."""
    training, factor = recipe.trainings["base"], recipe.vision_rate_factor
    own_rate = {} if factor == 1 else {"vision_learning_rate": factor * training.learning_rate}
    settings = {"freeze_vision": False, "dataloader_num_workers": 1, **own_rate}
    num_latents = 0 if recipe.thought_adapter_rank is None else 1  # from which on an adapter acts
    return Variant("base", "Learning to see", training, "base", num_latents=num_latents, settings=settings)


def trains_thought_adapter(recipe: DemoRecipe, variant: Variant) -> bool:
    """Check whether a variant thinks in a thought adapter."""
    has_rollout = variant.has_latents and variant.config.get("latent_token_id", 0) is not None
    return recipe.thought_adapter_rank is not None and has_rollout


def storm_variant(recipe: DemoRecipe) -> Variant:
    """Make the row of STORM, which starts from that of its Stage I."""
    targets = {
        "whitening_rank": recipe.whitening_rank,
        "target_layout": recipe.target_layout,
        "teacher_noise": recipe.teacher_noise,
        "target_normalize": "layernorm" if recipe.naive_targets else "whiten",
    }
    bottleneck = {"bottleneck_share": recipe.bottleneck_share}
    align = Variant(
        "align",
        TITLES["align"],
        recipe.trainings["align"],
        "align",
        num_latents=recipe.num_latents,
        settings={**targets, **bottleneck, **_projector_rate(recipe, "align")},
    )
    return Variant(
        "storm",
        TITLES["storm"],
        recipe.trainings["answer"],
        start=align,
        num_latents=recipe.num_latents,
        settings={**bottleneck, **_projector_rate(recipe, "answer")},
        is_shown=True,
    )


def _projector_rate(recipe: DemoRecipe, stage: str) -> dict[str, float]:
    factor = recipe.projector_rate_factor
    return {} if factor == 1 else {"projector_learning_rate": factor * recipe.trainings[stage].learning_rate}
