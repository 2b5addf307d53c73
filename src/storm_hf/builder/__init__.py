"""From annotations to a data set of thoughts that Stage I trains on: one recipe, idempotent steps, any number of processes."""

from storm_hf.builder.build import Share, ThoughtsBuilder
from storm_hf.builder.finish import ThoughtsReport
from storm_hf.builder.recipe import EncoderSettings, ReadingSettings, ThoughtsRecipe
from storm_hf.builder.scorer import FrozenScorer, ScorerSettings


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
