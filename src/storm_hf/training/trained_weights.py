"""Choice of the weights that a trainer trains, and of their precision."""

from accelerate.utils import is_peft_model
from peft import PeftConfig, PeftModel
from torch import nn
from transformers import PreTrainedModel, TrainingArguments

from storm_hf.model.halting_storm import HaltingHead
from storm_hf.model.modeling_storm import StormForConditionalGeneration
from storm_hf.training.learning_rates import vision_parameters
from storm_hf.training.peft import complete_adapter
from storm_hf.training.precision import train_whole_in_float32
from storm_hf.training.thought_adapter import train_thought_adapter


def freeze_halting_head(model: nn.Module) -> None:
    """Freeze a halting head, which only a stage that trains it gives a gradient."""
    for module in model.modules():
        if isinstance(module, HaltingHead):
            module.requires_grad_(False)


def choose_trained_weights(
    model: PreTrainedModel | PeftModel, peft_config: PeftConfig | None, args: TrainingArguments
) -> PeftConfig | None:
    """Freeze the vision tower if it is not trained, and hold the weights that are trained in float32.

    Returns:
        [`~peft.PeftConfig`] or `None`: The configuration of the adapter to train, completed.
    """
    if is_peft_model(model):  # what an adapter trains, PEFT has chosen
        return peft_config
    if getattr(model.config, "thought_adapter", None) is not None:
        train_thought_adapter(model, peft_config, args)
        return None
    freeze_vision(model, args.freeze_vision)
    if peft_config is not None:
        return complete_adapter(peft_config, model, args.freeze_vision)
    train_whole_in_float32(model, args)
    return None


def freeze_vision(model: StormForConditionalGeneration, is_frozen: bool = True) -> None:
    """Freeze the backbone's vision tower and merger, whatever the backbone calls them."""
    for parameter in vision_parameters(model):
        parameter.requires_grad_(not is_frozen)
