"""Adapters. LoRA trains every linear projection of the language model, and the latent projector whole.

The vision tower stays as it is, since it made the targets, and so does the head. The token embeddings stay too, with those of
`<|latent_start|>` and `<|latent_end|>`: they are read and never predicted, and the low-rank updates behind them learn what they
would. Tried once on a tiny random Qwen2.5-VL (60 steps of 5 rows, rank 8, learning rate 3e-3, one seed): Stage I ends at a loss
of 4.68 with frozen embeddings and 4.61 with trained ones, Stage II at 3.15 with either. PEFT's `trainable_token_indices` would
besides need CUDA under ZeRO-3.
"""

import copy
import re
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import is_peft_model
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME, ModulesToSaveWrapper
from safetensors import safe_open
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map
from transformers import PreTrainedModel
from trl import ModelConfig, get_peft_config

from storm_hf.checkpoints.adapter import AdapterFolder, full_name
from storm_hf.errors import CheckpointError, ConfigurationError


PROJECTOR = "latent_projector"
_ADAPTER_NAME = "default"
_NEEDED = ("target_modules", "exclude_modules", "modules_to_save")  # of an adapter's configuration


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
            nothing. For an adapter on the vision tower, pass a [`~peft.LoraConfig`] of your own to a trainer with
            `freeze_vision=False`.
        model ([`StormForConditionalGeneration`] or [`~peft.PeftModel`]):
            The model. One that has an adapter goes on with it.

    Returns:
        [`~peft.PeftConfig`] or `None`: What the trainers take as `peft_config`; `None` without `use_peft`, or for a model that
        has its adapter.
    """
    if not args.use_peft or is_peft_model(model):
        return None
    config = get_peft_config(args)
    config.revision = args.model_revision
    return complete_adapter(config, model)


def complete_adapter(config: PeftConfig, model: PreTrainedModel, freeze_vision: bool = True) -> PeftConfig:
    """Adjust an adapter's configuration to a STORM: the projector is trained whole, and the vision tower is left out.

    Args:
        config ([`~peft.PeftConfig`]):
            The adapter. Without `target_modules` it is put on every linear projection of the language model.
        model ([`StormForConditionalGeneration`]):
            The model that gets it.
        freeze_vision (`bool`, *optional*, defaults to `True`):
            Whether names such as `q_proj` or `"all-linear"` mean the language model alone.

    Returns:
        [`~peft.PeftConfig`]: A copy.

    Raises:
        ConfigurationError: If the adapter is a learned prompt, or trains no module whole, which the projector needs.
    """
    config = copy.deepcopy(config)
    projector = _projector_with_weights(model)
    if config.is_prompt_learning or not all(hasattr(config, name) for name in _NEEDED):
        raise ConfigurationError(
            f"Expected an adapter of the language model that can train the latent projector whole, got "
            f"{type(config).__name__}. Use a LoraConfig."
        )
    whole = {*(config.modules_to_save or ()), *projector}
    config.modules_to_save = sorted(whole) or None
    language_model = re.escape(decoder_name(model))
    if config.target_modules is None and getattr(config, "target_parameters", None) is None:
        names = "|".join(sorted(_linear_names(model.get_decoder())))
        config.target_modules = rf"{language_model}\..*\.({names})"
    left_out = [*_projector_names(model), *(_vision_names(model) if freeze_vision else ())]
    pattern = "|".join(rf"{re.escape(name)}(\..*)?" for name in left_out)
    config.exclude_modules = _or_excluded(config.exclude_modules, pattern)
    return config


def _or_excluded(given: str | list[str] | None, pattern: str) -> str:
    """Join names, or a pattern, that PEFT shall leave out with another pattern."""
    if not given:
        return pattern
    names = given if isinstance(given, str) else rf"(.*\.)?({'|'.join(map(re.escape, given))})"
    return f"({names})|({pattern})"


def check_adapter_trains(model: PeftModel, freeze_vision: bool) -> None:
    """Check an adapter that was put on a model before: it trains the projector, and not the vision tower.

    Args:
        model ([`~peft.PeftModel`]):
            The model.
        freeze_vision (`bool`):
            Whether the tower has to stay as it is.

    Raises:
        ConfigurationError: If it is not so.
    """
    base = model.get_base_model()
    trained = [_plain_name(name) for name, weight in model.named_parameters() if weight.requires_grad]
    if _projector_with_weights(base) and not any(PROJECTOR in name for name in trained):
        raise ConfigurationError(
            f"Expected an adapter that trains `{PROJECTOR}`, which would otherwise not be saved with it. Put it into "
            "`modules_to_save`, or give the adapter's configuration to the trainer as `peft_config`."
        )
    tower = tuple(f"{name}." for name in _vision_names(base))
    if freeze_vision and (wrong := [name for name in trained if name.startswith(tower)]):
        raise ConfigurationError(
            f"Expected a vision tower that stays as it is, but the adapter trains {wrong[0]}. Leave the tower out "
            "of `modules_to_save` and set `bias` to `lora_only` or `none`; an adapter that was made before also needs the tower in "
            "`exclude_modules`. Or set `freeze_vision: false`."
        )


def check_optimizer_trains(optimizer: torch.optim.Optimizer, model: PeftModel) -> None:
    """Make sure that an optimizer of one's own holds weights of the adapter, and not those of before alone, which are frozen.

    Args:
        optimizer ([`~torch.optim.Optimizer`]):
            The optimizer.
        model ([`~peft.PeftModel`]):
            The model that it is given for.

    Raises:
        ConfigurationError: If nothing would be trained.
    """
    held = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    if not any(weight.requires_grad and id(weight) in held for weight in model.parameters()):
        raise ConfigurationError(
            "Expected `optimizers` with an optimizer of the adapter's weights, got one that was made before they were, so that nothing "
            "would be trained. Name it with `optim` or give `optimizer_cls_and_kwargs`, or put the adapter on the model first."
        )


def decoder_name(model: PreTrainedModel) -> str:
    """The full name of the language model, as the backbone calls it."""
    return _name_of(model, model.get_decoder())


def outside_decoder(model: PreTrainedModel) -> list[str]:
    """Name the parts of a model that are not its language model, each by the shortest name that covers it.

    Args:
        model ([`StormForConditionalGeneration`]):
            A STORM around any backbone; its weights are not read.

    Returns:
        `list[str]`: For Qwen2.5-VL the latent projector, the vision tower with its merger, and the head.
    """
    decoder = decoder_name(model)
    ways = {decoder[:position] for position, letter in enumerate(decoder) if letter == "."} | {"", decoder}
    names = [name for name, _ in model.named_modules()]
    return [name for name in names if name not in ways and name.rpartition(".")[0] in ways - {decoder}]


def _vision_names(model: PreTrainedModel) -> list[str]:
    """Name the vision tower and its merger, whatever the backbone calls them."""
    others = {_name_of(model, model.get_output_embeddings()), *_projector_names(model)}
    return [name for name in outside_decoder(model) if name not in others]


def _projector_names(model: PreTrainedModel) -> list[str]:
    return [name for name in outside_decoder(model) if name.rpartition(".")[2] == PROJECTOR]


def _name_of(model: nn.Module, part: nn.Module) -> str:
    return next(name for name, module in model.named_modules() if module is part)


def _linear_names(decoder: nn.Module) -> set[str]:
    return {name.rpartition(".")[2] for name, module in decoder.named_modules() if isinstance(module, nn.Linear)}


def _projector_with_weights(model: PreTrainedModel) -> list[str]:
    """The latent projector, unless it is the identity, which has nothing to train."""
    return [PROJECTOR] if any(True for _ in model.model.latent_projector.parameters()) else []


def continue_adapter(model: PreTrainedModel, folder: AdapterFolder) -> PeftModel:
    """Put a saved adapter on the model that it belongs to, ready to be trained on.

    Args:
        model ([`StormForConditionalGeneration`]):
            Model that the adapter was trained on.
        folder ([`~storm_hf.checkpoints.adapter.AdapterFolder`]):
            Folder of the adapter.

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
    expected = {full_name(name): list(weight.shape) for name, weight in state.items()}
    with safe_open(Path(folder, SAFETENSORS_WEIGHTS_NAME), "pt") as weights:
        saved = {full_name(name): weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118
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
            frozen = next(module.original_module.parameters(), None)
            dtype = torch.float32 if frozen is None else frozen.dtype
            take_any_precision(module.modules_to_save[_ADAPTER_NAME], dtype)


def take_any_precision(module: nn.Module, dtype: torch.dtype) -> None:
    """Let a float32 module stand among states of lower precision, also where there is no autocast, as in `generate`.

    Args:
        module (`nn.Module`):
            The trained copy: the projector, the token embeddings, the vision tower, ...
        dtype (`torch.dtype`):
            Precision of the original, which is returned where no real numbers come, as to embeddings; else theirs is.
    """
    forward = module.forward

    def cast(*states: object, **options: object) -> object:
        given = [value.dtype for value in tree_leaves((states, options)) if _is_real(value)]
        states, options = _with_reals((states, options), torch.float32)
        return _with_reals(forward(*states, **options), given[0] if given else dtype)

    module.forward = cast


def _with_reals(values: Any, dtype: torch.dtype) -> Any:
    """Cast the tensors of real numbers among some values, in tuples, mappings and outputs of models too."""
    return tree_map(lambda value: value.to(dtype) if _is_real(value) else value, values)


def _is_real(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _plain_name(name: str) -> str:
    for addition in ("base_model.model.", f"modules_to_save.{_ADAPTER_NAME}."):
        name = name.replace(addition, "")
    return name
