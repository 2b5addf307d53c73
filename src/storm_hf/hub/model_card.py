"""The card of a checkpoint, whole model or adapter, rendered from plain values."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from storm_hf.hub.cards import CITATION, PAPER, as_words, in_one_line, template
from storm_hf.hub.licenses import hub_license, other_license
from storm_hf.hub.measured import BenchmarkResult
from storm_hf.hub.model_facts import FACTS, ModelFacts
from storm_hf.hub.stages_picture import PICTURE, draw_stages
from storm_hf.writing import written_whole


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
    return ModelCard.from_template(
        _metadata(facts, title),
        template_str=template("model_card"),
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
    with written_whole(folder / PICTURE) as file:
        file.write_bytes(draw_stages(facts.num_latents))
    for name, text in ((CARD, str(model_card(facts))), (FACTS, facts.to_json())):
        with written_whole(folder / name) as file:
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
