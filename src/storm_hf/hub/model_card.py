"""The card of a checkpoint, whole model or adapter, rendered from plain values.

They lie beside the card as `storm_card.json`, so that a card can be written again with the name of its repository.
"""

import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from storm_hf.atomic import written_atomically
from storm_hf.hub.card_metadata import CITATION, PAPER, as_words, in_one_line, is_hub_name, render_card, worlds_only
from storm_hf.hub.card_results import BenchmarkResult, CausalUse, Latency
from storm_hf.hub.licenses import hub_license, other_license
from storm_hf.hub.stages_picture import PICTURE, draw_stages
from storm_hf.model.processing_storm import PromptRecord
from storm_hf.settings import make_settings


FACTS = "storm_card.json"
Stage = Literal["base", "align", "answer", "grpo"]


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """Facts about a checkpoint. Unknown ones are None or empty, and the card has no line about them.

    Args:
        name (`str`):
            Name to load it by: its repository, or the name of its folder as long as it has none.
        stage (`str`):
            `"base"` (a backbone made a STORM, not trained), `"align"`, `"answer"` or `"grpo"`.
        backbone (`str`):
            Kind of the backbone, such as `qwen2_5_vl`.
        num_latents (`int`):
            Length K of the rollout.
        num_parameters (`int`):
            Of the model, or of the adapter alone.
        latent_attention (`str`, *optional*, defaults to `"full"`):
            Context of a latent; see [`StormConfig`].
        thought_rank (`int`, *optional*):
            Rank of its thought adapter; see [`StormConfig`].
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
    thought_rank: int | None = None
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
        return make_settings(cls, json.loads(text), FACTS)


def facts_of_model(model: Any, *, name: str, stage: Stage, **known: Any) -> ModelFacts:
    """Collect the facts of a model in memory.

    Args:
        model ([`StormForConditionalGeneration`]):
            The model, or a [`~peft.PeftModel`] around it: then the facts are about its adapter.
        name (`str`):
            Name to load it by.
        stage (`str`):
            `"base"`, `"align"`, `"answer"` or `"grpo"`.
        known:
            Other fields of [`ModelFacts`].
    """
    is_adapter = hasattr(model, "get_base_model")
    storm = model.get_base_model() if is_adapter else model
    weights = (weight for weight in model.parameters() if weight.requires_grad or not is_adapter)
    place = storm.name_or_path
    earlier = None if is_hub_name(place) else read_facts(Path(place))  # of the folder that training started from
    worlds = worlds_only(getattr(model.config, "trained_on", None))
    found = {
        "name": name,
        "stage": stage,
        "backbone": model.config.vlm_config.model_type,
        "num_latents": model.config.num_latents,
        "latent_attention": model.config.latent_attention,
        "thought_rank": (model.config.thought_adapter or {}).get("r"),
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


def read_facts(folder: Path) -> ModelFacts | None:
    """Read the facts that lie beside a checkpoint, if they do."""
    file = folder / FACTS
    return ModelFacts.from_json(file.read_text(encoding="utf-8")) if file.is_file() else None


CARD = "README.md"
_TASK = "image-text-to-text"  # the pipeline that runs it
_METRIC = "accuracy"


def model_card(facts: ModelFacts) -> ModelCard:
    """Render the card.

    Args:
        facts ([`ModelFacts`]):
            Known facts. An unknown one is an absent line or an absent section.
    """
    title = facts.name.rpartition("/")[2]
    return render_card(
        ModelCard,
        _metadata(facts, title),
        "model_card",
        title=title,
        facts=_escaped(facts),
        known_costs=_known_costs(facts),
        picture=PICTURE,
        paper=PAPER,
        citation=CITATION,
    )


def _escaped(facts: ModelFacts) -> ModelFacts:
    """The facts as a card may show them: what others measured and named has no markup, and commands are one line each."""
    values = {name: as_words(value) for name, value in asdict(facts).items() if name not in ("name", "tags", "files")}
    escaped = ModelFacts.from_json(json.dumps({"name": facts.name, "tags": facts.tags, **values}))
    results = [
        replace(new, command=in_one_line(old.command)) for new, old in zip(escaped.results, facts.results, strict=True)
    ]
    use, latency = escaped.causal_use, escaped.latency
    if use and facts.causal_use and facts.causal_use.command:
        use = replace(use, command=in_one_line(facts.causal_use.command))
    if latency and facts.latency:
        latency = replace(latency, command=in_one_line(facts.latency.command))
    return replace(escaped, results=tuple(results), causal_use=use, latency=latency)


def write_card(facts: ModelFacts, folder: Path) -> None:
    """Write the card, its picture, and the values that it was rendered from into the folder of a checkpoint."""
    with written_atomically(folder / PICTURE) as file:
        file.write_bytes(draw_stages(facts.num_latents))
    for name, text in ((CARD, str(model_card(facts))), (FACTS, facts.to_json())):
        with written_atomically(folder / name) as file:
            file.write_text(text, encoding="utf-8")


def _known_costs(facts: ModelFacts) -> set[str]:
    """The columns of the table of costs that have a value in some row."""
    costs = () if facts.latency is None else facts.latency.costs
    return {name for cost in costs for name, value in asdict(cost).items() if value is not None}


def _metadata(facts: ModelFacts, title: str) -> ModelCardData:
    optional: dict[str, Any] = {}
    if facts.results:
        optional = {"model_name": title, "eval_results": [_eval_result(result) for result in facts.results]}
    if facts.base_model and facts.is_adapter:
        optional["base_model_relation"] = "adapter"
    license_name = facts.license_name or facts.backbone_license
    if facts.license is not None:
        optional |= other_license(license_name) if facts.license == "other" else hub_license(facts.license)
    return ModelCardData(
        base_model=facts.base_model,
        language=list(facts.languages) or None,
        datasets=list(facts.datasets) or None,
        library_name="peft" if facts.is_adapter else "transformers",
        pipeline_tag=_TASK,
        tags=sorted({*facts.tags, "video", "latent-reasoning"}),
        **optional,
    )


def _eval_result(result: BenchmarkResult) -> EvalResult:
    return EvalResult(
        task_type="video-text-to-text",
        dataset_type=result.dataset or re.sub(r"\W+", "-", result.benchmark.lower()),
        dataset_name=result.benchmark,
        metric_type=_METRIC,
        metric_name=f"{_METRIC}, read by {result.scorer}",
        metric_value=round(result.accuracy, 4),
        metric_args={"scorer": result.scorer, "command": result.command},
    )
