"""What LoRA trains: every linear projection of the language model, and the latent projector whole.

The vision tower stays as it is, since it made the targets, and so does the head. The token embeddings stay too, with those of
`<|latent_start|>` and `<|latent_end|>`: they are read and never predicted, and the low-rank updates behind them learn what they
would. Tried once on a tiny random Qwen2.5-VL (60 steps of 5 rows, rank 8, learning rate 3e-3, one seed): Stage I ends at a loss
of 4.68 with frozen embeddings and 4.61 with trained ones, Stage II at 3.15 with either. PEFT's `trainable_token_indices` would
besides need CUDA under ZeRO-3.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import is_peft_model
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME, ModulesToSaveWrapper
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel
from trl import ModelConfig, get_peft_config

from storm_hf.errors import CheckpointError
from storm_hf.training.adapter_folder import AdapterFolder


PROJECTOR = "latent_projector"
_ADAPTER_NAME = "default"


def default_lora(model: PreTrainedModel, r: int = 16, alpha: int = 32, dropout: float = 0.05) -> LoraConfig:
    """Configure an adapter that one need not think about.

    Args:
        model ([`StormForConditionalGeneration`]):
            A STORM around any backbone; the names of its projections are read off it.
        r (`int`, *optional*, defaults to `16`):
            Rank of the updates.
        alpha (`int`, *optional*, defaults to `32`):
            The updates are scaled by `alpha / r`.
        dropout (`float`, *optional*, defaults to `0.05`):
            Share of the inputs of an update that is dropped in training.
    """
    args = ModelConfig(use_peft=True, lora_r=r, lora_alpha=alpha, lora_dropout=dropout)
    config = peft_config(args, model)
    assert isinstance(config, LoraConfig)
    return config


def peft_config(args: ModelConfig, model: PreTrainedModel | PeftModel) -> PeftConfig | None:
    """Configure the adapter that a run's arguments ask for, where they are silent with the default.

    Args:
        args ([`~trl.ModelConfig`]):
            `use_peft` and the arguments of LoRA. `lora_target_modules` names projections of the language model;
            `lora_modules_to_save` what is trained whole beside the latent projector, which always is: Stage I trains it from
            nothing. For an adapter on the vision tower, pass a [`~peft.LoraConfig`] of your own to the trainer.
        model ([`StormForConditionalGeneration`] or [`~peft.PeftModel`]):
            The model. One that has an adapter goes on with it.

    Returns:
        [`~peft.PeftConfig`] or `None`: What the trainers take as `peft_config`; `None` without `use_peft`, or for a model that
        has its adapter.
    """
    if not args.use_peft or is_peft_model(model):
        return None
    language_model = re.escape(decoder_name(model))
    if args.lora_target_modules is None and args.lora_target_parameters is None:
        names = "|".join(sorted(_linear_names(model.get_decoder())))
        args = replace(args, lora_target_modules=[rf"{language_model}\..*\.({names})"])
    trained_whole = {*(args.lora_modules_to_save or ()), *_projector_with_weights(model)}
    config = get_peft_config(replace(args, lora_modules_to_save=sorted(trained_whole) or None))
    config.exclude_modules = rf"(?!{language_model}\.).*"  # a name such as `q_proj` also stands in some vision towers
    config.revision = args.model_revision
    return config


def decoder_name(model: PreTrainedModel) -> str:
    """The full name of the language model, as the backbone calls it."""
    decoder = model.get_decoder()
    return next(name for name, module in model.named_modules() if module is decoder)


def _linear_names(decoder: nn.Module) -> set[str]:
    return {name.rpartition(".")[2] for name, module in decoder.named_modules() if isinstance(module, nn.Linear)}


def _projector_with_weights(model: PreTrainedModel) -> list[str]:
    """The latent projector, unless it is the identity, which has nothing to train."""
    return [PROJECTOR] if any(True for _ in model.model.latent_projector.parameters()) else []


def continue_adapter(model: PreTrainedModel, folder: AdapterFolder) -> PeftModel:
    """Put a saved adapter on the model that it belongs to, ready to be trained on.

    Args:
        model ([`StormForConditionalGeneration`]):
            What the adapter was trained on.
        folder ([`~storm_hf.training.adapter_folder.AdapterFolder`]):
            Where the adapter lies.

    Raises:
        CheckpointError: If the adapter's weights are not those that its configuration makes of this model.
    """
    config = PeftConfig.from_pretrained(folder.path)
    config.inference_mode = False
    config.base_model_name_or_path = model.name_or_path or None
    adapted = get_peft_model(model, config)
    check_adapter_fits(adapted, folder.path)
    adapted.load_adapter(str(folder.path), _ADAPTER_NAME, is_trainable=True)
    return adapted


def check_adapter_fits(model: PeftModel, folder: str | Path) -> None:
    """Make sure that a saved adapter is whole and nothing else, which PEFT would only warn of.

    Args:
        model ([`~peft.PeftModel`]):
            The model that will load it.
        folder (`str` or `Path`):
            A folder with `adapter_model.safetensors`.

    Raises:
        CheckpointError: If weights are missing, unexpected or of another shape.
    """
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    expected = {name: list(weight.shape) for name, weight in state.items()}
    with safe_open(Path(folder, SAFETENSORS_WEIGHTS_NAME), "pt") as weights:
        saved = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118
    wrong = sorted(name for name in expected.keys() | saved.keys() if expected.get(name) != saved.get(name))
    if wrong:
        raise CheckpointError(
            f"The adapter in {folder} does not fit the model: {len(wrong)} weights are missing, superfluous or of another "
            f"shape, the first is {wrong[0]}. Expected {expected.get(wrong[0], 'none of that name')}, got "
            f"{saved.get(wrong[0], 'none')}. Use the rank, the modules and the backbone that it was trained with."
        )


def exact_weights(model: nn.Module) -> dict[str, Any]:
    """The trained weights by their names without PEFT's additions, to be given to `train_in_float32` later."""
    return {_plain_name(name): weight.data for name, weight in model.named_parameters() if weight.requires_grad}


def train_in_float32(model: PeftModel, exact: dict[str, Any]) -> None:
    """Hold what an adapter trains in float32, whatever the precision of the model below.

    In bfloat16, weights about one D**-0.5 do not move by the small steps of Stage II: the update is less than half of the last
    digit. TRL rounds adapters on a quantized model to bfloat16, and PEFT copies the projector in the model's precision.

    Args:
        model ([`~peft.PeftModel`]):
            The model; its projector takes and returns the precision of the states around it.
        exact (`dict[str, torch.Tensor]`):
            Weights from before they were rounded.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            weight = exact.get(_plain_name(name), parameter.data)
            parameter.data = weight.to(torch.float32, copy=True)  # the frozen original keeps its own
    for module in model.modules():
        if isinstance(module, ModulesToSaveWrapper):
            _take_any_precision(module.modules_to_save[_ADAPTER_NAME])


def _take_any_precision(projector: nn.Module) -> None:
    """Let a float32 module stand among states of lower precision, also where there is no autocast, as in `generate`."""
    forward = projector.forward
    projector.forward = lambda states: forward(states.float()).to(states.dtype)


def _plain_name(name: str) -> str:
    for addition in ("base_model.model.", f"modules_to_save.{_ADAPTER_NAME}."):
        name = name.replace(addition, "")
    return name
