"""Stage II: cross entropy on the answer alone, with the gradient through the model's own rollout."""

from typing import Any, ClassVar

import torch
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import is_peft_model
from peft import PeftConfig, PeftModel
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from storm_hf.answer.config import StormAnswerConfig
from storm_hf.answer.objective import halting_loss, halting_prior
from storm_hf.errors import ConfigurationError
from storm_hf.inputs.collator import IGNORED_LABEL
from storm_hf.model.rollout_storm import RolloutGradient
from storm_hf.training.arguments import Rows
from storm_hf.training.trainer import StormTrainer


class StormAnswerTrainer(StormTrainer):
    """Trains on answers only, so that the reasoning is internalized (arXiv 2605.26014, Stage II).

    The latents are rolled out by the model, and L = L_answer reaches them through the rollout's own cache. With
    `num_latents=0` this is plain supervised fine-tuning: the direct control and the text chain of thought are trained by it. With
    `halting` the answer is learned after every latent, and a halting head where to stop ([`storm_hf.answer.objective`]).

    Parameters are those of [`StormTrainer`], in the order of [`~trl.SFTTrainer`], with a [`StormAnswerConfig`] as `args`. The
    model should be one that came out of Stage I: from a model that has not, latents learn to do nothing. Rows have a video, a
    question and an answer; columns of thought videos are left out.

    Raises:
        ConfigurationError: If `halting` is asked for beside an adapter of PEFT, a `compute_loss_func` or an optimizer without the head.
    """

    _name = "STORM Stage II"
    _stage = "answer"
    _config_class = StormAnswerConfig
    _tag_names: ClassVar[list[str]] = ["trl", "storm", "storm-answer"]

    def select_rows(self, rows: Rows) -> Rows:
        """Leave out the columns that hold thought videos: this stage neither sees them nor reads them from disk."""
        names = [name for name in getattr(rows, "column_names", None) or () if name.startswith("thought_")]
        return rows.remove_columns(names) if names else rows

    def prepare_model(
        self, model: PreTrainedModel | PeftModel, args: StormAnswerConfig, peft_config: PeftConfig | None
    ) -> None:
        """Give the model the halting head that is trained, if it is."""
        super().prepare_model(model, args, peft_config)
        if not args.halting:
            return
        if peft_config is not None or is_peft_model(model):
            raise ConfigurationError(
                "`halting` trains a head inside the model, and got an adapter of PEFT, whose folder would not hold it. Merge the "
                "adapter first, or train a thought adapter (`add_thought_adapter`)."
            )
        if not model.config.halting_head:
            model.add_halting_head()
        model.model.halting_head.requires_grad_(True)

    def begin_run(self, is_resumed: bool) -> None:
        """Refuse a loss of one's own, which `halting` would not ask, and an optimizer that would not train the head."""
        if self.args.halting:
            self._check_halting()
        super().begin_run(is_resumed)

    def _check_halting(self) -> None:
        if self.compute_loss_func is not None:
            raise ConfigurationError(
                "`halting` has a loss of its own, got a `compute_loss_func`. Leave one of the two out."
            )
        if self.optimizer is None or isinstance(
            self.optimizer, AcceleratedOptimizer
        ):  # made by an earlier call of `train`
            return
        held = {id(weight) for group in self.optimizer.param_groups for weight in group["params"]}
        head = self.accelerator.unwrap_model(self.model).model.halting_head
        if not any(id(weight) in held for weight in head.parameters()):
            raise ConfigurationError(
                "Expected `optimizers` with an optimizer that holds the halting head, got one that was made before the head was, so "
                "that it would not be trained. Name it with `optim`, or call `model.add_halting_head()` before you make it."
            )

    def stage_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, ModelOutput]:
        """Compute the loss of the answer, in training with `halting` of the answers after every latent."""
        if not (self.args.halting and self.model.training):
            return super().stage_loss(model, inputs, return_outputs, num_items_in_batch)
        settings: dict[str, Any] = {"output_router_logits": True} if self.aux_loss_enabled else {}
        if self.args.rollout_gradient != RolloutGradient():
            settings["rollout_gradient"] = self.args.rollout_gradient
        output = model(**inputs, **settings, answer_every_step=True, use_cache=False)
        prior = halting_prior(self.args.halting_prior, output.step_losses.shape[1], self.args.halting_prior_steps)
        parts = halting_loss(output.step_losses, output.halting_logits, prior.to(output.step_losses.device))
        num_tokens = (inputs["labels"] != IGNORED_LABEL).sum() if num_items_in_batch is None else num_items_in_batch
        is_of_all = num_items_in_batch is not None and self.args.average_tokens_across_devices
        num_processes = self.accelerator.num_processes if is_of_all else 1
        loss = parts.answer.sum() * num_processes / torch.as_tensor(num_tokens).clamp(min=1)
        divergence = parts.divergence.sum() * self.row_scale(len(parts.divergence), num_items_in_batch)
        logs = {"halting_divergence": parts.divergence.mean(), "num_latents_used": parts.num_latents.mean()}
        loss = loss + self.args.halting_weight * divergence
        if self.aux_loss_enabled:  # of experts, in a full thought
            num_parts = self.current_gradient_accumulation_steps if num_items_in_batch is not None else 1
            loss = loss + self.router_aux_loss_coef * output.aux_loss / num_parts
            logs["aux_loss"] = output.aux_loss
        self._log_means(logs)
        return (loss, output) if return_outputs else loss
