"""Stage II: cross entropy on the answer alone, with the gradient through the model's own rollout."""

from typing import ClassVar

from storm_hf.answer.config import StormAnswerConfig
from storm_hf.training.arguments import Rows
from storm_hf.training.trainer import StormTrainer


class StormAnswerTrainer(StormTrainer):
    """Trains on answers only, so that the reasoning is internalized (arXiv 2605.26014, Stage II).

    The latents are rolled out by the model, and L = L_answer reaches them through the rollout's own cache. With
    `num_latents=0` this is plain supervised fine-tuning: the direct control and the text chain of thought are trained by it.

    Parameters are those of [`StormTrainer`], in the order of [`~trl.SFTTrainer`], with a [`StormAnswerConfig`] as `args`. The
    model should be one that came out of Stage I: from a model that has not, latents learn to do nothing. Rows have a video, a
    question and an answer; columns of thought videos are left out.
    """

    _name = "STORM Stage II"
    _stage = "answer"
    _config_class = StormAnswerConfig
    _tag_names: ClassVar[list[str]] = ["trl", "storm", "storm-answer"]

    def select_rows(self, rows: Rows) -> Rows:
        """Leave out the columns that hold thought videos: this stage neither sees them nor reads them from disk."""
        names = [name for name in getattr(rows, "column_names", None) or () if name.startswith("thought_")]
        return rows.remove_columns(names) if names else rows
