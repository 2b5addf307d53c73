"""More arms, for the benchmarks: tokens that carry nothing, latents that were never aligned, and the paper to the letter.

- `pause`: the same K slots, filled with a learned token instead of latents.
- `answer_only`: Stage II without Stage I.
- `paper`: raw targets pooled over the flat sequence, the squared error alone at weight 0.1, and hidden states fed back as they
  are, as in the paper; with the updates and the rates of our own arm.
"""

import dataclasses

from storm_hf.demo.folder import DemoFolder
from storm_hf.demo.recipe import DemoRecipe
from storm_hf.demo.tasks import Task
from storm_hf.demo.variants import Block, Variant, variant_task


CONTROLS = {"pause": "Pause tokens", "answer_only": "Stage II alone", "paper": "The paper's targets and loss"}
PAPER = {
    "target_pooling": "sequence",
    "target_normalize": "none",
    "align_loss": "mse",
    "align_weight": 0.1,
}


def storm_variant(recipe: DemoRecipe, name: str = "storm", title: str = "STORM") -> Variant:
    """STORM as the recipe trains it, Stage I and then Stage II: what every other arm is compared with."""
    align, answer = recipe.trainings["align"], recipe.trainings["answer"]
    return Variant(
        name,
        title,
        align_updates=align.num_updates,
        answer_updates=answer.num_updates,
        align_rate=align.learning_rate,
        answer_rate=answer.learning_rate,
        num_latents=recipe.num_latents,
        bottleneck_share=recipe.bottleneck_share,
        align={
            "whitening_rank": recipe.whitening_rank,
            "target_layout": recipe.target_layout,
            "teacher_noise": recipe.teacher_noise,
        },
    )


def paper_variant(recipe: DemoRecipe) -> Variant:
    """The paper's targets, loss and feedback, without a bottleneck, with the updates and rates of STORM."""
    storm = storm_variant(recipe, "paper", CONTROLS["paper"])
    return dataclasses.replace(storm, latent_projector="identity", bottleneck_share=0.0, align=PAPER)


def naive_variant(recipe: DemoRecipe) -> Variant:
    """Targets as they are pooled on average over space, brought to unit size and not whitened."""
    storm = storm_variant(recipe, "naive", "Naive targets")
    settings = {"target_normalize": "layernorm", "teacher_noise": recipe.teacher_noise}
    return dataclasses.replace(storm, align=settings)


def plain_variant(recipe: DemoRecipe, name: str, title: str, block: Block, chain: str | None = None) -> Variant:
    """An arm without Stage I, with STORM's number of updates at Stage I's rate."""
    storm = storm_variant(recipe)
    return dataclasses.replace(
        storm,
        name=name,
        title=title,
        block=block,
        chain=chain,
        align_updates=0,
        answer_updates=storm.num_updates,
        answer_rate=storm.align_rate,
        bottleneck_share=0.0,
        align={},
    )


def control_tasks(folder: DemoFolder, recipe: DemoRecipe) -> list[Task]:
    """The work of all controls, each with STORM's number of updates."""
    variants = [
        plain_variant(recipe, "pause", CONTROLS["pause"], "pause"),
        plain_variant(recipe, "answer_only", CONTROLS["answer_only"], "latents"),
        paper_variant(recipe),
    ]
    return [variant_task(folder, recipe, variant) for variant in variants]
