"""Learning rates of parts: what is trained from nothing needs a larger one than a pretrained language model."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from accelerate.utils import is_peft_model
from peft import PeftModel
from torch import nn

from storm_hf.errors import ConfigurationError
from storm_hf.model import StormForConditionalGeneration
from storm_hf.training.config import StormTrainingConfig


_PROJECTOR, _VISION, _HALTING = "projector", "vision", "halting"


def rates_of_parts(args: StormTrainingConfig) -> dict[str, float]:
    """Read the learning rates that parts have instead of `learning_rate`, by the part."""
    rates = {_PROJECTOR: args.projector_learning_rate, _VISION: args.vision_learning_rate}
    rates[_HALTING] = getattr(args, "halting_learning_rate", None)  # of Stage II
    return {part: rate for part, rate in rates.items() if rate is not None}


def split_parameter_groups(
    optimizer: torch.optim.Optimizer,
    model: StormForConditionalGeneration | PeftModel,
    rates: Mapping[str, float],
) -> None:
    """Give the parameters of each part a group with a learning rate of its own, before the first step.

    Args:
        optimizer ([`~torch.optim.Optimizer`]):
            The optimizer; its groups are replaced.
        model ([`StormForConditionalGeneration`] or [`~peft.PeftModel`]):
            The model that it trains.
        rates (`Mapping[str, float]`):
            From `"projector"`, `"vision"` or `"halting"` to a learning rate.

    Raises:
        ConfigurationError: If a part with a rate has nothing that is trained, or the optimizer has no groups, as one that
            DeepSpeed makes of its own configuration.
    """
    if not getattr(optimizer, "param_groups", None):
        raise ConfigurationError(
            f"`{next(iter(rates))}_learning_rate` needs an optimizer that `optim` names, but DeepSpeed makes its own. Leave "
            "`optimizer` out of the configuration of DeepSpeed."
        )
    storm = model.get_base_model() if is_peft_model(model) else model
    head = storm.model.halting_head
    members = {
        _PROJECTOR: storm.model.latent_projector.parameters(),
        _VISION: vision_parameters(storm),
        _HALTING: () if head is None else head.parameters(),
    }
    part_of = {parameter: part for part in rates for parameter in members[part]}
    groups = [group for old in optimizer.param_groups for group in _split(old, part_of, rates)]
    trained = {part_of.get(parameter) for group in groups for parameter in group["params"]}
    if idle := [part for part in rates if part not in trained]:
        raise ConfigurationError(
            f"`{idle[0]}_learning_rate: {rates[idle[0]]:g}` has nothing to train. "
            + ("Set `freeze_vision: false`, or leave it out." if idle[0] == _VISION else "Leave it out.")
        )
    optimizer.param_groups[:] = groups


def vision_parameters(model: StormForConditionalGeneration) -> Iterable[nn.Parameter]:
    """Collect the parameters of the backbone's vision tower and merger, whatever the backbone calls them."""
    own = (
        model.get_decoder(),
        model.get_input_embeddings(),
        model.get_output_embeddings(),
        model.model.latent_projector,
        model.model.halting_head,
    )
    others = {id(parameter) for module in own if module is not None for parameter in module.parameters()}
    return [parameter for parameter in model.parameters() if id(parameter) not in others]


def _split(
    group: dict[str, Any], part_of: Mapping[nn.Parameter, str], rates: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    for part in (None, *rates):
        if members := [parameter for parameter in group["params"] if part_of.get(parameter) == part]:
            yield {**group, "params": members, "lr": group["lr"] if part is None else rates[part]}
