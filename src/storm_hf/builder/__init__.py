"""From annotations to a data set of thoughts that Stage I trains on: one recipe, idempotent steps, any number of processes."""

from typing import TYPE_CHECKING

from storm_hf.optional import first_use


if TYPE_CHECKING:
    from storm_hf.builder.build import Share, ThoughtsBuilder
    from storm_hf.builder.components import FrozenScorer, ScorerSettings
    from storm_hf.builder.finish import ThoughtsReport
    from storm_hf.builder.recipe import EncoderSettings, ReadingSettings, ThoughtsRecipe

_MODULE_OF = {
    "EncoderSettings": "storm_hf.builder.recipe",
    "FrozenScorer": "storm_hf.builder.components",
    "ReadingSettings": "storm_hf.builder.recipe",
    "ScorerSettings": "storm_hf.builder.components",
    "Share": "storm_hf.builder.build",
    "ThoughtsBuilder": "storm_hf.builder.build",
    "ThoughtsRecipe": "storm_hf.builder.recipe",
    "ThoughtsReport": "storm_hf.builder.finish",
}

__all__ = [
    "EncoderSettings",
    "FrozenScorer",
    "ReadingSettings",
    "ScorerSettings",
    "Share",
    "ThoughtsBuilder",
    "ThoughtsRecipe",
    "ThoughtsReport",
]

__getattr__ = first_use(__name__, _MODULE_OF)
