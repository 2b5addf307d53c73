"""The values that the published examples in `hub_cards/` are rendered from. Figures are those of benchmarks/RESULTS.md."""

from dataclasses import replace

from tests.hub.test_dataset_card import MANIFEST, published

from storm_hf.hub.card_results import BenchmarkResult, CausalUse, InterventionResult, Latency, VariantCost
from storm_hf.hub.dataset_card import dataset_card
from storm_hf.hub.model_card import ModelFacts, model_card
from storm_hf.hub.space_push import space_card


BASE = ModelFacts(
    name="storm-hf/storm-qwen2.5-vl-3b-base",
    stage="base",
    backbone="qwen2_5_vl",
    num_latents=8,
    num_parameters=3_758_823_424,
    base_model="Qwen/Qwen2.5-VL-3B-Instruct",
    license="other",
    backbone_license="qwen-research",
)
ALIGN = ModelFacts(
    name="storm-hf/storm-shuffle-align",
    stage="align",
    backbone="qwen2_5_vl",
    num_latents=6,
    num_parameters=887_936,
    worlds=("shuffle",),
    num_steps=300,
    license="apache-2.0",
    data_license="CC0-1.0",
    tags=("trl", "storm", "storm-align"),
)
ANSWER = replace(
    ALIGN,
    name="storm-hf/storm-shuffle",
    stage="answer",
    num_steps=100,
    tags=("trl", "storm", "storm-answer"),
    results=(
        BenchmarkResult(
            benchmark="shuffle, 5 or 6 swaps",
            accuracy=1.0,
            scorer="exact option",
            command="storm demo",
            num_questions=512,
        ),
    ),
    causal_use=CausalUse(
        headline="The answers come from the latents.",
        sentence="With another clip's latents the answer becomes that clip's in every swap.",
        rows=(
            InterventionResult(what="Its own latents", accuracy=1.0, low=0.993, high=1.0),
            InterventionResult(what="Zeros", accuracy=0.252, low=0.216, high=0.291),
            InterventionResult(what="Noise of all latents' size", accuracy=0.260, low=0.223, high=0.299),
            InterventionResult(what="The mean latent over all questions", accuracy=0.252, low=0.216, high=0.291),
            InterventionResult(
                what="Latents of a clip with another answer", accuracy=0.0, low=0.0, high=0.007, follows_donor=1.0
            ),
        ),
        command="storm diagnose --model storm-hf/storm-shuffle --dataset runs/demo --depth 5 --depth 6 --out runs/diagnosis",
        dataset="shuffle",
        num_questions=512,
        chance=0.25,
    ),
    latency=Latency(
        costs=(
            VariantCost(way="direct", forward_passes=1, accuracy=0.271),
            VariantCost(way="chain of thought in sentences", forward_passes=61, accuracy=1.0),
            VariantCost(way="chain of thought, one word a step", forward_passes=7, accuracy=1.0),
            VariantCost(way="STORM", forward_passes=8, accuracy=1.0),
        ),
        command="python benchmarks/worlds.py --world shuffle --seeds 0",
        machine="two x86-64 cores",
    ),
)
ADAPTER = ModelFacts(
    name="storm-hf/storm-qwen2.5-vl-3b-lora",
    stage="align",
    backbone="qwen2_5_vl",
    num_latents=8,
    num_parameters=34_134_016,
    is_adapter=True,
    base_model="Qwen/Qwen2.5-VL-3B-Instruct",
    datasets=("storm-hf/storm-thoughts",),
    license="other",
    backbone_license="qwen-research",
    tags=("trl", "storm", "storm-align"),
)
MODELS = {"model_base": BASE, "model_align": ALIGN, "model_answer": ANSWER, "model_adapter": ADAPTER}


def published_cards() -> dict[str, str]:
    """Each published example by the name of its file."""
    cards = {f"{name}.md": str(model_card(facts)) for name, facts in MODELS.items()}
    cards["dataset.md"] = str(dataset_card("storm-hf/storm-thoughts", MANIFEST, published()))
    space = space_card("storm-hf/ask-storm", model=ANSWER.name, gradio_version="6.31.0", license_name="apache-2.0")
    return {**cards, "space.md": str(space)}
