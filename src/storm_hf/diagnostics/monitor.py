"""Monitor of the latents while a stage trains: their meaning, and their effect on the answer.

Stage II sees answers only, so its trainer cannot know. Pass it this callback with thoughts of held-out clips.

Axes: N questions, K latent steps, D hidden size.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from storm_hf.align.objective import trajectory_alignment
from storm_hf.evaluation.batch import accuracy, answer_questions
from storm_hf.inputs.prompts import PromptEncoder, Row
from storm_hf.interventions.intervention import make_intervention
from storm_hf.interventions.kind import InterventionKind
from storm_hf.interventions.token_replacement import choose_donors, usual_wording
from storm_hf.model import StormForConditionalGeneration
from storm_hf.target_trajectory.schema import FEATURES_COLUMN
from storm_hf.target_trajectory.trajectory import TargetTrajectory


class LatentMonitor(TrainerCallback):
    """Logs held-out latent metrics every `every_logs` logging steps.

    `monitor_accuracy`; `monitor_latent_cosine` beside `monitor_latent_cosine_baseline`; `monitor_latent_retrieval` beside
    `monitor_latent_retrieval_chance`; `monitor_follows_donor`: the share of answers that become the correct answer of the
    clip whose latents were put in. It draws no random numbers that training draws.

    Args:
        rows (`Sequence`):
            Held-out rows of a storm-thoughts data set, with `thought_features`.
        prompts ([`~storm_hf.inputs.prompts.PromptEncoder`]):
            Encodes their questions.
        trajectory ([`~storm_hf.target_trajectory.TargetTrajectory`]):
            The targets of Stage I; `TargetTrajectory.load(checkpoint)`.
        every_logs (`int`, *optional*, defaults to `1`):
            Measure at each so many logs.
        max_new_tokens (`int`, *optional*, defaults to `8`):
            Longest answer.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        prompts: PromptEncoder,
        trajectory: TargetTrajectory,
        every_logs: int = 1,
        max_new_tokens: int = 8,
    ) -> None:
        self.rows, self.prompts = list(rows), prompts
        self.targets = trajectory([np.asarray(row[FEATURES_COLUMN]) for row in self.rows])  # (N, K, D)
        self.every_logs, self.max_new_tokens = every_logs, max_new_tokens
        self._num_logs = 0

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        model: StormForConditionalGeneration | None = None,
        **kwargs: object,
    ) -> None:
        """Measure, and write the measures into the log and the history."""
        if logs is None or model is None or "loss" not in logs:
            return
        self._num_logs += 1
        if self._num_logs % self.every_logs == 0:
            measures = self.measure(model)
            logs.update(measures)
            state.log_history[-1].update(measures)

    def measure(self, model: StormForConditionalGeneration) -> dict[str, float]:
        """Answer the held-out questions twice, with the model's own latents and with a donor's."""
        was_training = model.training
        try:
            return self._measure(model)
        finally:
            model.train(was_training)

    def _measure(self, model: StormForConditionalGeneration) -> dict[str, float]:
        answers = answer_questions(model, self.prompts, self.rows, max_new_tokens=self.max_new_tokens)
        latents = np.stack([np.asarray(answer.latents) for answer in answers])
        donors = choose_donors(self.rows)
        with_donors = answer_questions(
            model,
            self.prompts,
            self.rows,
            max_new_tokens=self.max_new_tokens,
            intervene=make_intervention(InterventionKind.donor, latents, donors=donors),
        )
        follows = [
            with_donors[index].choice == usual_wording(self.rows[donor])[1]
            for index, donor in enumerate(donors)
            if donor != index
        ]
        aligned = trajectory_alignment(torch.from_numpy(latents), self.targets)
        measures = {
            "monitor_accuracy": accuracy(answers, self.rows),
            **{f"monitor_{name}": value.item() for name, value in aligned.gauges.items()},
        }
        if follows:
            measures["monitor_follows_donor"] = float(np.mean(follows))
        return measures
