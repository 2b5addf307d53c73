"""Thought adapter: low-rank updates of the language model that act from `<|latent_start|>` on, and nowhere before it.

What a model knew is what it still knows: without a latent block it computes what its backbone computes, to the last bit, and the
prompt before a block is read by the backbone's own weights, so that its keys and values are the backbone's own. This is an
activated LoRA (arXiv 2504.12397) whose invocation token is `<|latent_start|>`, kept inside the checkpoint as Phi-4-Multimodal keeps
its own (arXiv 2503.01743). The layers are PEFT's; what is here says when they act.
"""

import importlib
import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import is_peft_available

from .errors_storm import ConfigurationError, DependencyError


ADAPTER_NAME = "thought"
# PEFT's other initialisations, such as PiSSA, change the weights beside which the updates are.
_INITIALISATIONS = (True, False, "gaussian", "orthogonal")


def insert_thought_adapter(decoder: nn.Module, settings: dict[str, Any]) -> None:
    """Put low-rank updates beside projections of a language model, idle until [`acting`] lets them act.

    Args:
        decoder (`nn.Module`):
            The language model; changed in place.
        settings (`dict`):
            Arguments of [`~peft.LoraConfig`], such as `r` and `lora_alpha`. Without `target_modules`, every linear projection.

    Raises:
        DependencyError: If `peft` is not installed.
        ConfigurationError: If these are no arguments of a `LoraConfig`, or such as change other weights, or the language model has
            one of these adapters.
    """
    _refuse_other_weights(settings)
    if not is_peft_available():
        raise DependencyError(
            "This model has a thought adapter, whose layers are PEFT's. Install it: `pip install peft`."
        )
    peft: Any = importlib.import_module("peft")  # a line that imports it would ask for it in every checkpoint
    if thought_layers(decoder):
        raise ConfigurationError(
            "Expected a language model without a thought adapter, got one that has it. Train that one."
        )
    names = sorted(
        {name.rpartition(".")[2] for name, module in decoder.named_modules() if isinstance(module, nn.Linear)}
    )
    try:
        config = peft.LoraConfig(**{"target_modules": names, **settings})
        peft.inject_adapter_in_model(config, decoder, adapter_name=ADAPTER_NAME)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"`thought_adapter` must hold arguments of a LoraConfig, got {settings}: {error}"
        ) from error
    layers = thought_layers(decoder)
    _switch(layers, is_acting=False)
    for weight in (weight for layer in layers for weight in adapter_weights(layer)):
        vars(weight)["_is_hf_initialized"] = True  # drawn, and zero where it has to be


def as_saved(settings: dict[str, Any]) -> dict[str, Any]:
    """Write settings of a thought adapter as a configuration stores them: sets as sorted lists.

    Raises:
        ConfigurationError: If one of them cannot be stored, so that the model could not be saved.
    """
    saved = {name: sorted(value) if isinstance(value, set) else value for name, value in settings.items()}
    for name, value in saved.items():
        try:
            json.dumps(value)
        except TypeError as error:
            raise ConfigurationError(
                f"`thought_adapter` is saved in config.json, and `{name}` cannot be: {value!r}. Give it as text, numbers and lists."
            ) from error
    return saved


def _refuse_other_weights(settings: dict[str, Any]) -> None:
    """Refuse arguments of a LoraConfig that would change, or train, what is no update: all else stays the backbone's own."""
    given = {
        "modules_to_save": bool(settings.get("modules_to_save")),
        "trainable_token_indices": bool(settings.get("trainable_token_indices")),
        "bias": settings.get("bias", "none") != "none",
        "init_lora_weights": settings.get("init_lora_weights", True) not in _INITIALISATIONS,
    }
    if wrong := [name for name, is_given in given.items() if is_given]:
        raise ConfigurationError(
            "`thought_adapter` leaves every other weight as it is, so that without latents the model is its backbone; "
            f"`{wrong[0]}: {settings[wrong[0]]}` changes some. Leave it out."
        )


def merge_thought_adapter(decoder: nn.Module) -> None:
    """Add the updates to the weights beside which they are, and take the adapter away."""
    adapted = {id(layer) for layer in thought_layers(decoder)}
    places = [
        (module, name)
        for module in decoder.modules()
        for name, child in module.named_children()
        if id(child) in adapted
    ]
    for module, name in places:
        layer: Any = getattr(module, name)
        layer.merge(adapter_names=[ADAPTER_NAME])
        setattr(module, name, layer.get_base_layer())


def thought_layers(decoder: nn.Module) -> list[nn.Module]:
    """The layers of a language model that a thought adapter was put on; none if it has none."""
    return [module for module in decoder.modules() if ADAPTER_NAME in getattr(module, "lora_A", ())]


def adapter_weights(layer: nn.Module) -> list[nn.Parameter]:
    """The weights of a layer's thought adapter."""
    return [weight for name, weight in layer.named_parameters() if f".{ADAPTER_NAME}" in name]


def acting(layers: Sequence[nn.Module], is_acting: bool) -> AbstractContextManager[None]:
    """Let the adapter of some layers act, or not, for a while. PEFT's own switch would also freeze it."""
    return (
        _acting(layers, is_acting) if layers else nullcontext()
    )  # which a compiled step without an adapter sees nothing of


@contextmanager
def _acting(layers: Sequence[nn.Module], is_acting: bool) -> Iterator[None]:
    _switch(layers, is_acting)
    try:
        yield
    finally:
        _switch(layers, is_acting=False)


def _switch(layers: Sequence[nn.Module], is_acting: bool) -> None:
    for layer in layers:
        _check_alone(layer)
        vars(layer)["_disable_adapters"] = not is_acting


def _check_alone(layer: Any) -> None:
    """Refuse another adapter in a layer: PEFT would let that one act in the place of the thought adapter."""
    if layer.active_adapters != [ADAPTER_NAME]:
        raise ConfigurationError(
            f"Expected the thought adapter alone in its layers, got the adapter {', '.join(map(repr, layer.active_adapters))} of PEFT "
            "in its place. Call `merge_thought_adapter()` before another adapter is added, or leave that one out."
        )


@contextmanager
def without_checkpointing(decoder: nn.Module) -> Iterator[None]:
    """Keep the activations of a language model for a while.

    A layer that is recomputed in the backward pass would not know whether its adapter acted. Nothing is lost: of a prompt that is
    read by frozen weights nothing is kept, and the latents and the answer are short.
    """
    layers = [module for module in decoder.modules() if isinstance(module, GradientCheckpointingLayer)]
    before = [layer.gradient_checkpointing for layer in layers]
    for layer in layers:
        layer.gradient_checkpointing = False
    try:
        yield
    finally:
        for layer, was_on in zip(layers, before, strict=True):
            layer.gradient_checkpointing = was_on
