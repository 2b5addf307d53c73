"""Batches for Stage I: those of the answer, with each row's target trajectory beside them.

Axes: B batch, K latent steps, D hidden size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from storm_hf.align.step_words import StepWords
from storm_hf.errors import DatasetError, LatentError
from storm_hf.inputs.collator import AnswerCollator
from storm_hf.inputs.prompts import Row
from storm_hf.target_trajectory.schema import FEATURES_COLUMN
from storm_hf.target_trajectory.trajectory import TargetTrajectory


@dataclass(frozen=True)
class AlignCollator:
    """Turns rows into a batch with `target_trajectory` (B, K, D), and `step_words` (B, K, W) if they are read.

    Args:
        answers ([`~storm_hf.inputs.collator.AnswerCollator`]):
            Makes the rest of the batch.
        trajectory ([`~storm_hf.target_trajectory.TargetTrajectory`]):
            Pools and whitens the features of the thought videos.
        words ([`~storm_hf.align.step_words.StepWords`], *optional*):
            Tokenizes the written steps.

    Raises:
        LatentError: If there are not as many targets as the prompts have latents.
    """

    answers: AnswerCollator
    trajectory: TargetTrajectory
    words: StepWords | None = None

    def __post_init__(self) -> None:
        num_latents = self.answers.prompts.num_latents
        if self.trajectory.num_latents != num_latents:
            raise LatentError(
                f"Expected a target for each of {num_latents} latents, got {self.trajectory.num_latents}. Give "
                f"`target_trajectory.with_num_latents({num_latents})`, or set `num_latents={self.trajectory.num_latents}`."
            )

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Collate `rows`.

        Raises:
            DatasetError: If a row has no `thought_features`, or no written steps where they are read.
        """
        if any(row.get(FEATURES_COLUMN) is None for row in rows):
            raise DatasetError(
                f"Stage I needs the column `{FEATURES_COLUMN}`, got {sorted(rows[0])}. Build the data set with "
                "`storm build RECIPE`, or train answers only with StormAnswerTrainer."
            )
        batch = self.answers(rows)
        batch["target_trajectory"] = self.trajectory([np.asarray(row[FEATURES_COLUMN]) for row in rows])
        if self.words is not None:
            batch["step_words"] = self.words(rows)
        return batch
