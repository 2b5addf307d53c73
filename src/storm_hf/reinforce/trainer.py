"""Reinforcement on latents: TRL's GRPO, with roll-outs that think and a policy that includes their latents.

Ratios, clipping, kinds of loss, advantages, the tokens' KL and logs are TRL's. Rows, roll-outs and log-probabilities are ours.

Axes: B batch, C completion, K latent steps, D hidden size.
"""

import copy
import logging
import os
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from accelerate.utils import is_peft_model
from peft import PeftConfig, PeftModel
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin, TrainerCallback
from trl import GRPOTrainer
from trl.models import unwrap_model_for_generation
from trl.trainer.utils import RepeatSampler, add_fused_lm_head

from storm_hf.errors import ConfigurationError
from storm_hf.inputs.prompts import PromptEncoder, Row
from storm_hf.reinforce.config import StormGRPOConfig
from storm_hf.reinforce.noise import GaussianLatents, LatentRecord, LatentSubspace
from storm_hf.reinforce.replay import Replay, ReplayedLogProbs
from storm_hf.reinforce.rewards import RewardFunction, donor_answer, find_rewards
from storm_hf.reinforce.rollout import Rollouts, RolloutSampler, question_text
from storm_hf.target_trajectory.trajectory import FILE_NAME, TargetTrajectory
from storm_hf.training.arguments import EvaluationRows, Rows, load_parts, record_prompts, refuse_arguments
from storm_hf.training.checkpointing import CheckpointingTrainer
from storm_hf.training.precision import check_loss
from storm_hf.training.samplers import with_arrays
from storm_hf.training.trained_weights import choose_trained_weights, freeze_halting_head


_RECORD = ("fed", "noise", "std", "is_given")  # fields of a `LatentRecord`, as columns of TRL's batches

logger = logging.getLogger(__name__)


class StormGRPOTrainer(CheckpointingTrainer, GRPOTrainer):
    """Rewards answers, and what latents do for them. Parameters in the order of [`~trl.GRPOTrainer`].

    A roll-out is the model's own `generate`, with noise on every latent. The gradient of the default estimator goes through the
    exact rollout, with this noise replayed; see [`storm_hf.reinforce.replay`]. With `args.beta` the tokens have TRL's KL
    divergence from the model that the run began with, and the latents that of two Gaussians in closed form.

    Args:
        model (`str`, [`StormForConditionalGeneration`] or [`~peft.PeftModel`]):
            A STORM, or a checkpoint's name or folder; see [`StormTrainer`]. It should come out of Stage I or II.
        reward_funcs (`Callable` or `list[Callable]`, *optional*):
            Functions of [`~trl.GRPOTrainer`]; see [`storm_hf.reinforce.rewards`] for the columns they get. By default
            `args.rewards`.
        args ([`StormGRPOConfig`], *optional*):
            Configuration of the run.
        train_dataset ([`~datasets.Dataset`]):
            Rows with a video, a question and an answer, of any form of [`storm_hf.inputs.conversation`], or with cached video
            features.
        eval_dataset ([`~datasets.Dataset`], *optional*):
            Rows of another split.
        processing_class ([`~transformers.ProcessorMixin`], *optional*):
            The processor with latent tokens. By default that of the model.
        callbacks (list of [`~transformers.TrainerCallback`], *optional*):
            Callbacks beside the default ones.
        optimizers (`tuple`, *optional*, defaults to `(None, None)`):
            An optimizer and a scheduler.
        peft_config ([`~peft.PeftConfig`], *optional*):
            An adapter to train; it also gets the latent projector. See [`StormTrainer`].
        target_trajectory ([`~storm_hf.TargetTrajectory`], *optional*):
            Targets of Stage I, in whose directions noise is drawn. By default those of `args.latent_subspace`.

    Raises:
        ConfigurationError: If one of these is not what is said here, or cannot be loaded.
    """

    _name = "STORM reinforcement"
    _stage = "grpo"
    _tag_names: ClassVar[list[str]] = ["trl", "storm", "storm-grpo"]

    _replayed: Mapping[str, Any]  # rows whose log-probabilities are asked for, as columns
    _means: torch.Tensor  # latents of the last replay (B, K, D)

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        reward_funcs: RewardFunction | list[RewardFunction] | None = None,
        args: StormGRPOConfig | None = None,
        train_dataset: Rows | None = None,
        eval_dataset: EvaluationRows | None = None,
        processing_class: PreTrainedTokenizerBase | ProcessorMixin | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
        peft_config: PeftConfig | None = None,
        *,
        target_trajectory: TargetTrajectory | None = None,
    ) -> None:
        args = StormGRPOConfig("storm-grpo") if args is None else args
        refuse_arguments(args, StormGRPOConfig, train_dataset)
        model, processing_class, args = load_parts(model, processing_class, args, None)
        self._targets = target_trajectory or find_targets(args.latent_subspace, model.config.name_or_path)
        self._prompts = _prompt_encoder(model, processing_class, args)
        freeze_halting_head(model)
        peft_config = choose_trained_weights(model, peft_config, args)
        reference = _reference(model, args) if args.beta and peft_config is None else None
        super().__init__(
            model=model,
            args=args if reference is None else _without_reference(args),
            reward_funcs=find_rewards(args.reward_names) if reward_funcs is None else reward_funcs,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
            peft_config=peft_config,
        )
        record_prompts(self._prompts, train_dataset, self.model.config)
        self.rollout_func = self._roll_out  # after TRL's warning of one that is given
        self._suppress_video_tokens()
        if reference is not None:
            self._take_reference(reference, args.beta)
        if is_peft_model(self.model):  # TRL's copy of the adapter, the reference, is not saved
            self.model.save_pretrained = partial(self.model.save_pretrained, selected_adapters=["default"])

    def _take_reference(self, reference: PreTrainedModel, beta: float) -> None:
        add_fused_lm_head(reference, temperature=self.temperature)
        self.ref_model = self.accelerator.prepare_model(reference, evaluation_mode=True)
        self.beta = self.args.beta = beta

    def _suppress_video_tokens(self) -> None:
        """Keep placeholders of videos out of answers, as TRL does those of pictures: no features would be theirs."""
        config = self.model.config
        ids = [token_id for token_id in (config.image_token_id, config.video_token_id) if token_id is not None]
        self.generation_config.suppress_tokens = self.generation_kwargs["suppress_tokens"] = ids

    @cached_property
    def policy(self) -> GaussianLatents:
        """The distribution of latents around those that the model computes."""
        hidden_size = self.model.config.hidden_size
        subspace = LatentSubspace(hidden_size)
        if self.args.estimator == "pathwise" and self._targets is not None:
            subspace = LatentSubspace.of_targets(self._targets, hidden_size)
        elif self.args.estimator == "pathwise" and self.args.latent_noise:
            logger.warning(
                "Noise is drawn in all directions of the latents: there is no %s beside the model. `latent_subspace` names the "
                "folder of its Stage I or of its data set.",
                FILE_NAME,
            )
        return GaussianLatents(subspace, self.args.latent_noise)

    def save_beside(self, folder: Path) -> None:
        """Save the statistics of the targets, whose directions have noise."""
        if self._targets is not None:
            self._targets.save(folder)

    # --- Rows --------------------------------------------------------------------------------------------------------

    def _get_dataloader(self, dataset: Rows, *args: object, **kwargs: object) -> DataLoader:
        return super()._get_dataloader(with_arrays(dataset), *args, **kwargs)

    def _get_train_sampler(self, dataset: Rows | None = None) -> RepeatSampler:
        """Order rows as TRL does, and each epoch by its number, also where a run is resumed in it."""
        sampler = super()._get_train_sampler(dataset)
        sampler.set_epoch = partial(_set_epoch, sampler)
        return sampler

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        """Count micro-batches on from where a resumed run stopped, by which TRL knows when to roll out."""
        progress = super()._init_training_state(*args, **kwargs)
        self._step = self.state.global_step * self.args.gradient_accumulation_steps
        return progress

    # --- Roll-outs ---------------------------------------------------------------------------------------------------

    def _generate_and_score_completions(self, inputs: list[Row]) -> dict[str, torch.Tensor | Any]:
        """Roll out, reward and compute advantages; add to TRL's batch what replays its rows."""
        self._replayed = {"rows": inputs}
        shown = [{**_columns_of(row), "prompt": question_text(self._prompts, row)} for row in inputs]
        batch = super()._generate_and_score_completions(shown)
        if "ref_per_token_logps" in batch:  # the reference came last
            batch["ref_means"] = self._means
        return {**batch, **{name: value for name, value in self._replayed.items() if name != "rows"}}

    def _roll_out(self, prompts: Sequence[str], trainer: GRPOTrainer) -> dict[str, Any]:
        """Sample the roll-outs of the generation batch: TRL's `rollout_func`."""
        rows = self._replayed["rows"]
        num_generations = self.num_generations if self.model.training else self.num_generations_eval
        first = self.accelerator.process_index * len(rows)
        places = range(first, first + len(rows))
        num_own = num_generations - self.args.num_donor_rollouts * self.model.training
        with (
            unwrap_model_for_generation(
                self.model_wrapped,
                self.accelerator,
                gather_deepspeed3_params=self.args.ds3_gather_for_generation,
                generation_kwargs=self.generation_kwargs,
                gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
            ) as model,
            self._dist.summon_full_params(self.model_wrapped, recurse=False),
        ):
            sample = RolloutSampler(
                self._prompts,
                self.policy,
                self.generation_config,
                self.eos_token_ids,
                donor_asks_same=donor_answer in self.reward_funcs,
            )
            rollouts = sample(
                model,
                rows,
                numbers=[place // num_generations for place in places],
                has_donor=[place % num_generations >= num_own for place in places],
            )
        if self.args.num_donor_rollouts:
            fed = torch.tensor([donor is not None for donor in rollouts.donors], device=self.accelerator.device)
            mode = "train" if self.model.training else "eval"
            self._metrics[mode]["donor_share"].append(self.accelerator.gather(fed.float()).mean().item())
        self._replayed = {
            "prompts": [group.prompt for group in rollouts.groups],
            **{name: getattr(rollouts.latents, name) for name in _RECORD},
        }
        return self._as_completions(rollouts)

    def _as_completions(self, rollouts: Rollouts) -> dict[str, Any]:
        """Write roll-outs as TRL's prompts and completions, with the columns of the rewards."""
        num_latents = self._prompts.num_latents
        block = list(self.model.config.latent_block_ids)[1:]  # the placeholder and the end
        prompt_ids = [_unpadded(group.prompt)[: -(num_latents + 1)] for group in rollouts.groups]
        completion_ids = [[block[0]] * num_latents + [block[1], *answer] for answer in rollouts.answers]
        is_density = int(self.args.estimator == "score")
        masks = [
            [is_density * (donor is None)] * num_latents + [0] + [1] * len(answer)
            for donor, answer in zip(rollouts.donors, rollouts.answers, strict=True)
        ]
        return {
            "prompt_ids": prompt_ids,
            "completion_ids": completion_ids,
            "logprobs": None,
            "env_mask": masks,
            "answer": [group.asked["answer"] for group in rollouts.groups],
            "group": [group.number for group in rollouts.groups],
            "num_latents": [num_latents] * len(completion_ids),
            "is_ended": [answer[-1] in self.eos_token_ids for answer in rollouts.answers],
            "has_donor": [donor is not None for donor in rollouts.donors],
            "donor": [None if donor is None else donor.asked for donor in rollouts.donors],
            "question_style": [self._prompts.style] * len(completion_ids),
        }

    # --- Log-probabilities and loss ----------------------------------------------------------------------------------

    def _get_per_token_logps_and_entropies(
        self,
        model: nn.Module,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **images: object,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Replay roll-outs. The rows are those of `_replayed`; TRL's fields of images are empty."""
        replay = Replay(self.policy, self.args.estimator)
        options = {"output_router_logits": True} if compute_aux_loss else {}
        record = LatentRecord(*(self._replayed[name] for name in _RECORD))
        size = batch_size or len(input_ids)
        parts = []
        for start in range(0, len(input_ids), size):
            rows = slice(start, start + size)
            with self.accelerator.autocast():
                part = replay(
                    model,
                    input_ids[rows],
                    attention_mask[rows],
                    record[rows],
                    self._replayed["prompts"][rows],
                    logits_to_keep,
                    **options,
                )
            parts.append(part)
        replayed = ReplayedLogProbs.cat(parts)
        self._means = replayed.means
        if (reference := self._replayed.get("ref_per_token_logps")) is not None:
            # TRL's estimate of a KL, and its gradient, are zero where both agree: that of the latents has a closed form.
            reference[:, : self._prompts.num_latents] = replayed.log_probs[:, : self._prompts.num_latents].detach()
        return replayed.log_probs, replayed.entropy, replayed.aux_loss

    def _compute_loss(self, model: nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        """Compute TRL's loss, and add the divergence of the latents.

        Raises:
            StageError: If the loss of training is not finite.
        """
        self._replayed = inputs
        loss = super()._compute_loss(model, inputs)
        if self.beta and self.args.latent_noise:
            loss = loss + self._divergence(inputs)
        if self.model.training:
            check_loss(loss, self.state.global_step + 1, inputs, self.model)
        return loss

    def _divergence(self, inputs: dict[str, Any]) -> torch.Tensor:
        """Weighted divergence of the latents of the last replay from those of the reference."""
        divergence = self.policy.divergence(self._means, inputs["ref_means"], inputs["std"]).mean()
        mode = "train" if self.model.training else "eval"
        self._metrics[mode]["latent_kl"].append(self.accelerator.gather(divergence.detach()).mean().item())
        num_parts = self.current_gradient_accumulation_steps if mode == "train" else 1
        return self.beta * divergence / num_parts


def find_targets(folder: str | None, model_folder: str | os.PathLike[str] | None) -> TargetTrajectory | None:
    """Find the targets of Stage I, in whose directions noise is drawn.

    Args:
        folder (`str`, *optional*):
            Folder that must have them.
        model_folder (`str` or `os.PathLike`, *optional*):
            Folder of the model, which may have them.

    Raises:
        DatasetError: If `folder` has none.
    """
    if folder is not None:
        return TargetTrajectory.load(folder)
    if model_folder and Path(model_folder, FILE_NAME).is_file():
        return TargetTrajectory.load(model_folder)
    return None


def _prompt_encoder(
    model: PreTrainedModel | PeftModel, processor: ProcessorMixin, args: StormGRPOConfig
) -> PromptEncoder:
    num_latents = model.config.num_latents if args.num_latents is None else args.num_latents
    return PromptEncoder(processor, model.config, num_latents, args.question_style)


def _reference(model: PreTrainedModel | PeftModel, args: StormGRPOConfig) -> PreTrainedModel | None:
    """Copy the model as it is before the run; TRL would load it anew from its name, which it may not have.

    Raises:
        ConfigurationError: If the weights will lie on several processes.
    """
    if is_peft_model(model):  # TRL copies the adapter
        return None
    if args.deepspeed_plugin is not None or args.fsdp_plugin_args is not None:
        raise ConfigurationError(
            f"`beta: {args.beta}` needs the model that the run began with, whose copy is not sharded. Train an adapter (`use_peft: "
            "true`), which is switched off for it, or set `beta: 0`."
        )
    return copy.deepcopy(model).eval().requires_grad_(False)


def _without_reference(args: StormGRPOConfig) -> StormGRPOConfig:
    args = copy.copy(args)
    args.beta = 0.0
    return args


def _set_epoch(sampler: RepeatSampler, epoch: int) -> None:
    if sampler.shuffle:
        sampler.generator.manual_seed(sampler.seed + epoch)


def _columns_of(row: Row) -> dict[str, Any]:
    """Columns that rewards may read: none of what TRL would take for pictures, and no encoded clip."""
    return {
        name: value
        for name, value in row.items()
        if name not in ("image", "images", "environment") and not name.startswith(("video_", "prompt_", "thought_"))
    }


def _unpadded(prompt: Mapping[str, torch.Tensor]) -> list[int]:
    return prompt["input_ids"][0].tolist()
