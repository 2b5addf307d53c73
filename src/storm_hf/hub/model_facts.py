"""Facts that a model card is rendered from: plain values, known when a checkpoint is saved, completed when it is published.

They lie beside the card as `storm_card.json`, so that a card can be written again with the name of its repository.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from storm_hf.hub.hub_names import is_hub_name
from storm_hf.hub.measured import ArmCost, BenchmarkResult, CausalUse, InterventionResult, Latency
from storm_hf.model.prompt_storm import PromptRecord


FACTS = "storm_card.json"
Stage = Literal["base", "align", "answer"]


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """Facts about a checkpoint. Unknown ones are None or empty, and the card has no line about them.

    Args:
        name (`str`):
            Name to load it by: its repository, or the name of its folder as long as it has none.
        stage (`str`):
            `"base"` (a backbone made a STORM, not trained), `"align"` or `"answer"`.
        backbone (`str`):
            Kind of the backbone, such as `qwen2_5_vl`.
        num_latents (`int`):
            Length K of the rollout.
        num_parameters (`int`):
            Of the model, or of the adapter alone.
        latent_attention (`str`, *optional*, defaults to `"full"`):
            Context of a latent; see [`StormConfig`].
        prompt (`dict`, *optional*):
            Form of the prompts that it was trained on, as its configuration has it.
        is_adapter (`bool`, *optional*, defaults to `False`):
            Whether it is a LoRA adapter.
        base_model (`str`, *optional*):
            The checkpoint on the Hub that training started from.
        datasets (`tuple[str, ...]`, *optional*):
            Data sets on the Hub that it was trained on.
        worlds (`tuple[str, ...]`, *optional*):
            Simulated worlds that it was trained on, if it has seen nothing else.
        num_steps (`int`, *optional*):
            Steps that were trained.
        bottleneck_share (`float`, *optional*):
            Share of training rows whose answer came from the latents alone.
        languages (`tuple[str, ...]`, *optional*):
            Codes of the languages that it was trained on, such as `en`.
        license (`str`, *optional*):
            Licence of the weights.
        license_name (`str`, *optional*):
            Name of that licence, where `license` is `other`: the Hub does not list it.
        backbone_license (`str`, *optional*):
            Licence of the backbone.
        data_license (`str`, *optional*):
            Licence of the data.
        tags (`tuple[str, ...]`, *optional*):
            Tags on the Hub.
        results (`tuple[BenchmarkResult, ...]`, *optional*):
            Accuracies.
        causal_use ([`CausalUse`], *optional*):
            Evidence that the answers come from the latents, or do not.
        latency ([`Latency`], *optional*):
            Cost of an answer.
        files (`tuple[str, ...]`, *optional*):
            Files published by the push that wrote the card.
    """

    name: str
    stage: Stage
    backbone: str
    num_latents: int
    num_parameters: int
    latent_attention: str = "full"
    prompt: dict[str, Any] | None = None
    is_adapter: bool = False
    base_model: str | None = None
    datasets: tuple[str, ...] = ()
    worlds: tuple[str, ...] = ()
    num_steps: int | None = None
    bottleneck_share: float | None = None
    languages: tuple[str, ...] = ()
    license: str | None = None
    license_name: str | None = None
    backbone_license: str | None = None
    data_license: str | None = None
    tags: tuple[str, ...] = ("storm",)
    results: tuple[BenchmarkResult, ...] = ()
    causal_use: CausalUse | None = None
    latency: Latency | None = None
    files: tuple[str, ...] = ()

    @property
    def record(self) -> PromptRecord:
        """The form of the prompts that it was trained on."""
        return PromptRecord.from_dict(self.num_latents, self.prompt)

    def to_json(self) -> str:
        """Write what is known, and nothing of what is not."""
        known = {name: value for name, value in asdict(self).items() if value not in (None, ())}
        return json.dumps(known, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "ModelFacts":
        """Read what `to_json` wrote."""
        values = json.loads(text)
        for name in ("datasets", "worlds", "languages", "tags", "files"):
            values[name] = tuple(values.get(name, ()))
        values["results"] = tuple(BenchmarkResult(**result) for result in values.get("results", ()))
        if use := values.get("causal_use"):
            values["causal_use"] = CausalUse(
                **{**use, "rows": tuple(InterventionResult(**row) for row in use["rows"])}
            )
        if costs := values.get("latency"):
            values["latency"] = Latency(**{**costs, "costs": tuple(ArmCost(**cost) for cost in costs["costs"])})
        return cls(**values)


def facts_of_model(model: Any, *, name: str, stage: Stage, **known: Any) -> ModelFacts:
    """Collect the facts of a model in memory.

    Args:
        model ([`StormForConditionalGeneration`]):
            The model, or a [`~peft.PeftModel`] around it: then the facts are about its adapter.
        name (`str`):
            Name to load it by.
        stage (`str`):
            `"base"`, `"align"` or `"answer"`.
        known:
            Other fields of [`ModelFacts`].
    """
    is_adapter = hasattr(model, "get_base_model")
    storm = model.get_base_model() if is_adapter else model
    weights = (weight for weight in model.parameters() if weight.requires_grad or not is_adapter)
    place = storm.name_or_path
    earlier = None if is_hub_name(place) else read_facts(Path(place))  # of the folder that training started from
    worlds = worlds_of(model.config.to_dict())
    found = {
        "name": name,
        "stage": stage,
        "backbone": model.config.vlm_config.model_type,
        "num_latents": model.config.num_latents,
        "latent_attention": model.config.latent_attention,
        "prompt": model.config.storm_prompt,
        "num_parameters": sum(weight.numel() for weight in weights),
        "is_adapter": is_adapter,
        "base_model": place if is_hub_name(place) else earlier.base_model if earlier and not is_adapter else None,
        "languages": ("en",) if worlds else earlier.languages if earlier else (),
        "worlds": worlds,
    }
    known = {name: value for name, value in known.items() if value is not None}
    if earlier is not None:  # an earlier stage has seen its data too
        known["datasets"] = tuple(dict.fromkeys((*earlier.datasets, *known.get("datasets", ()))))
    return ModelFacts(**{**found, **known})


def worlds_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The worlds in the training record of a configuration, if the model was trained on nothing else."""
    sources = config.get("trained_on") or ()
    if not all(source.startswith("world:") for source in sources):
        return ()
    return tuple(source.removeprefix("world:") for source in sources)


def read_facts(folder: Path) -> ModelFacts | None:
    """Read the facts that lie beside a checkpoint, if they do."""
    file = folder / FACTS
    return ModelFacts.from_json(file.read_text(encoding="utf-8")) if file.is_file() else None
