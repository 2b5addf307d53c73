"""Cards, rendered from a run's own values. An unknown value is an absent line, never a placeholder."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData


def trained_model_card(
    *,
    model: Any,
    stage: str,
    tags: list[str],
    paper: str,
    state: Any = None,
    results: dict[str, float] | None = None,
    base_model: str | None = None,
    license_name: str | None = None,
) -> ModelCard:
    """Render the card of a checkpoint that a trainer saves.

    Args:
        model ([`StormForConditionalGeneration`]):
            The model whose configuration is described, or a [`~peft.PeftModel`] around it: then the card is of its adapter.
        stage (`str`):
            `"align"`, `"answer"` or another stem.
        tags (`list[str]`):
            Tags of the model on the Hub.
        paper (`str`):
            arXiv number.
        state ([`~transformers.TrainerState`], *optional*):
            Says how many steps were trained.
        results (`dict[str, float]`, *optional*):
            Accuracies by name.
        base_model (`str`, *optional*):
            The checkpoint on the Hub that training started from.
        license_name (`str`, *optional*):
            Licence of the weights.
    """
    is_adapter = hasattr(model, "get_base_model")
    below = model.get_base_model().name_or_path if is_adapter else None
    if base_model is None and below and not Path(below).exists():  # a folder is no name on the Hub
        base_model = below
    data = ModelCardData(
        base_model=base_model,
        license=license_name,
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        tags=[*tags, "video", "latent-reasoning"],
    )
    template = files("storm_hf.hub").joinpath("templates/model_card.md").read_text()
    return ModelCard.from_template(
        data,
        template_str=template,
        stage=stage,
        paper=paper,
        num_latents=model.config.num_latents,
        backbone=model.config.vlm_config.model_type,
        num_parameters=sum(weight.numel() for weight in model.parameters() if weight.requires_grad or not is_adapter),
        is_adapter=is_adapter,
        adapter_of=below,
        num_steps=getattr(state, "global_step", None),
        results=results,
    )
