"""Stage I: align the latents with what thought videos show, and answer from them.

L = L_answer + align_weight * L_align. The answer's loss is divided by the supervised tokens, the alignment's by the rows, each
of the whole accumulated batch over all processes, so that one batch of four equals four accumulated batches of one.

Axes: B batch, K latent steps, D hidden size.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from trl.trainer.utils import FusedCausalLMOutput

from storm_hf.align.collator import AlignCollator
from storm_hf.align.config import StormAlignConfig
from storm_hf.align.objective import Alignment, trajectory_alignment
from storm_hf.model.modeling_storm import StormForConditionalGeneration
from storm_hf.target_trajectory.published import find_targets
from storm_hf.target_trajectory.schema import FEATURES_COLUMN
from storm_hf.target_trajectory.trajectory import TargetTrajectory
from storm_hf.training.collator import AnswerCollator
from storm_hf.training.prompts import PromptEncoder
from storm_hf.training.trainer import StormTrainer


@dataclass
class _AlignOutput(FusedCausalLMOutput):
    """TRL's output with latents: weights that no output depends on, DistributedDataParallel takes for unused."""

    latents: torch.Tensor | None = None


DEFAULT_RANK = 16  # enough for `shuffle`; `choose_rank` finds it for other data

logger = logging.getLogger(__name__)


class StormAlignTrainer(StormTrainer):
    """Aligns the latents with thought videos (arXiv 2605.26014, Stage I).

    Args:
        model ([`StormForConditionalGeneration`]):
            What `from_backbone` made.
        args ([`StormAlignConfig`], *optional*):
            Configuration of the run.
        train_dataset ([`~datasets.Dataset`]):
            Rows of a storm-thoughts data set, with `thought_features`.
        processing_class ([`~transformers.ProcessorMixin`]):
            The backbone's processor with latent tokens.
        trajectory ([`~storm_hf.target_trajectory.TargetTrajectory`], *optional*):
            How features become targets, for example `TargetTrajectory.load(dataset_folder)`. By default it is fitted to
            `train_dataset` as `args` says. It is saved with the model.
        data_collator (`Callable`, *optional*):
            By default an [`~storm_hf.align.collator.AlignCollator`].
        kwargs:
            What else [`~trl.SFTTrainer`] takes.
    """

    _name = "STORM Stage I"
    _stage = "align"
    _tag_names: ClassVar[list[str]] = ["trl", "storm", "storm-align"]

    def __init__(
        self,
        model: StormForConditionalGeneration,
        args: StormAlignConfig | None = None,
        train_dataset: Dataset | None = None,
        processing_class: Any = None,
        trajectory: TargetTrajectory | None = None,
        data_collator: Any = None,
        **kwargs: Any,
    ) -> None:
        args = args or StormAlignConfig("storm-align")
        if data_collator is None:
            num_latents = model.config.num_latents if args.num_latents is None else args.num_latents
            trajectory = trajectory or fit_trajectory(train_dataset, num_latents, args)
            prompts = PromptEncoder(processing_class, model.config, num_latents, args.question_style)
            data_collator = AlignCollator(AnswerCollator(prompts), trajectory)
        self.trajectory = trajectory
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            processing_class=processing_class,
            data_collator=data_collator,
            **kwargs,
        )

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Add the alignment of the latents to TRL's loss of the answer."""
        inputs = dict(inputs)
        targets = inputs.pop("target_trajectory")
        with self._latents_of(model) as rollout:
            answer_loss = super().compute_loss(
                model, {**inputs, **self._forcing(targets)}, num_items_in_batch=num_items_in_batch
            )
        alignment = trajectory_alignment(rollout[0], targets, self.args.align_loss, self.args.align_reduction)
        align_loss = alignment.loss.sum() * self._row_scale(len(targets), num_items_in_batch)
        num_parts = self.current_gradient_accumulation_steps if num_items_in_batch is not None else 1
        self._log_parts(answer_loss * num_parts, alignment)
        loss = answer_loss + self.args.align_weight * align_loss
        return (loss, None) if return_outputs else loss

    @contextmanager
    def _latents_of(self, model: nn.Module) -> Iterator[list[torch.Tensor]]:
        """Collect the latents that the body makes; TRL's fused head passes on only what the answer needs."""
        whole = self.accelerator.unwrap_model(model)
        body = next(module for module in whole.modules() if hasattr(module, "latent_projector"))
        latents: list[torch.Tensor] = []

        def collect(module: nn.Module, args: Any, output: Any) -> None:
            latents.append(output.latents)

        def pass_on(module: nn.Module, args: Any, output: Any) -> _AlignOutput:
            return _AlignOutput(**output, latents=latents[-1])

        handles = [body.register_forward_hook(collect), whole.register_forward_hook(pass_on)]
        try:
            yield latents
        finally:
            for handle in handles:
                handle.remove()

    def _forcing(self, targets: torch.Tensor) -> dict[str, Any]:
        """What the latent slots are fed."""
        if self.args.forcing == "teacher":
            return {"forced_latents": self._disturbed(targets)}
        if self.args.forcing == "rollout" or not self.model.training:
            return {}
        share = self.state.global_step / max(self.state.max_steps, 1)  # of slots that are fed the model's own latent
        draws = np.stack([generator.random(targets.shape[1]) for generator in self._row_generators(len(targets))])
        is_own = torch.from_numpy(draws < share).to(targets.device)  # (B, K)

        def mix(step: int, latent: torch.Tensor) -> torch.Tensor:
            return torch.where(is_own[:, step, None], latent, targets[:, step].to(latent.dtype))

        return {"latent_intervention": mix}

    def _disturbed(self, targets: torch.Tensor) -> torch.Tensor:
        """Targets with noise, in training: the model meets slots as wrong as its own latents will be."""
        if not self.model.training or self.args.teacher_noise == 0:
            return targets
        generators = self._row_generators(len(targets))
        noise = np.stack([generator.standard_normal(targets.shape[1:], dtype=np.float32) for generator in generators])
        return targets + self.args.teacher_noise * torch.from_numpy(noise).to(targets)

    def _row_scale(self, num_rows: int, num_items_in_batch: torch.Tensor | int | None) -> torch.Tensor | float:
        """One over the rows of the whole accumulated batch; `Trainer` averages gradients over processes."""
        if num_items_in_batch is None or self._num_rows_in_batch is None:
            return 1 / num_rows
        return self.accelerator.num_processes / self._num_rows_in_batch

    def _log_parts(self, answer_loss: torch.Tensor, alignment: Alignment) -> None:
        self._log_means(
            {
                "answer_loss": answer_loss,
                "align_loss": alignment.loss.mean(),
                "latent_cosine": alignment.cosine,
                "latent_cosine_baseline": alignment.cosine_baseline,
                "latent_retrieval": alignment.retrieval,
                "latent_retrieval_chance": alignment.retrieval_chance,
            }
        )

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model, and beside it the statistics that diagnostics read."""
        super().save_model(output_dir, _internal_call)
        if self.trajectory is not None and self.args.should_save:
            self.trajectory.save(output_dir or self.args.output_dir)


def saved_trajectory(
    dataset_folder: str | os.PathLike[str], num_latents: int, args: StormAlignConfig
) -> TargetTrajectory | None:
    """Look for the targets that a data set's builder chose and saved, unless `args` ask for others.

    Args:
        dataset_folder (`str` or `os.PathLike`):
            A folder, or the name of a data set on the Hub.
        num_latents (`int`):
            Number K of latent steps.
        args ([`StormAlignConfig`]):
            Ask for others with `whitening_rank`, with `target_normalize` other than `"whiten"`, or with a pooling, layout or
            `whitening_statistics` that is neither the default nor the saved one, which is logged.

    Raises:
        TrajectoryShapeError: If the saved statistics know another number of slots.
    """
    if args.whitening_rank is not None or args.target_normalize != "whiten":
        return None
    saved = find_targets(dataset_folder)
    if saved is None:
        return None
    is_pooled = saved.statistics is None or saved.statistics.num_latents is None
    asked = {
        "pooling": (args.target_pooling, "temporal", saved.pooling),
        "layout": (args.target_layout, "average", saved.layout),
        "statistics": (args.whitening_statistics, "pooled", "pooled" if is_pooled else "per_slot"),
    }
    for name, (wanted, default, known) in asked.items():
        if wanted not in (default, known):
            logger.warning(
                "The targets saved with %s have the %s %r, but %r is asked for: others are fitted to its training split, of rank `whitening_rank`.",
                dataset_folder,
                name,
                known,
                wanted,
            )
            return None
    return saved.with_num_latents(num_latents)


def fit_trajectory(dataset: Dataset, num_latents: int, args: StormAlignConfig) -> TargetTrajectory:
    """Learn from a training split how its thought features become targets.

    Args:
        dataset ([`~datasets.Dataset`]):
            Rows with `thought_features`.
        num_latents (`int`):
            Number K of latent steps.
        args ([`StormAlignConfig`]):
            Says how to pool and normalise.
    """
    if args.target_normalize != "whiten":
        return TargetTrajectory(num_latents, args.target_pooling, args.target_layout, normalize=args.target_normalize)
    thoughts = dataset.select_columns([FEATURES_COLUMN]).with_format("numpy")
    return TargetTrajectory.fit(
        (batch[FEATURES_COLUMN] for batch in thoughts.iter(256)),
        num_latents=num_latents,
        rank=DEFAULT_RANK if args.whitening_rank is None else args.whitening_rank,
        pooling=args.target_pooling,
        layout=args.target_layout,
        statistics=args.whitening_statistics,
        seed=args.seed,
    )
