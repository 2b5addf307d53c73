"""Each card renders from a run's own values and says nothing that is not known."""

from types import SimpleNamespace

import pytest
import yaml
from peft import get_peft_model
from tests.tiny import tiny_storm

from storm_hf.hub.cards import trained_model_card
from storm_hf.training.adapter import default_lora


RESULTS = {"shuffle, 5-6 swaps": 0.98765, "latents zeroed": 0.25}


@pytest.fixture(scope="module")
def model():
    return tiny_storm("qwen2_5_vl", num_latents=4)


def card_of(model, **values):
    defaults = {"stage": "answer", "tags": ["trl", "storm", "storm-answer"], "paper": "2605.26014"}
    return trained_model_card(model=model, **{**defaults, **values})


EVERYTHING = {
    "state": SimpleNamespace(global_step=100),
    "results": RESULTS,
    "base_model": "Qwen/Qwen2.5-VL-3B-Instruct",
    "license_name": "apache-2.0",
}


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["nothing known", "everything known"])
@pytest.mark.parametrize("stage", ["align", "answer", "base"])
def test_card_has_no_placeholder(model, stage, values):
    content = str(card_of(model, stage=stage, **values))
    for placeholder in ("None", "{{", "}}", "{%", "More information needed", "[More", "nan"):
        assert placeholder not in content, placeholder


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["nothing known", "everything known"])
def test_metadata_is_what_the_hub_reads(model, values):
    card = card_of(model, **values)
    _, metadata, _ = str(card).split("---\n", maxsplit=2)
    read = yaml.safe_load(metadata)
    assert read["library_name"] == "transformers"
    assert read["pipeline_tag"] == "image-text-to-text"
    assert len(read["tags"]) == len(set(read["tags"]))
    assert {"storm", "storm-answer", "video", "latent-reasoning"} <= set(read["tags"])
    assert read.get("license") == values.get("license_name")
    assert read.get("base_model") == values.get("base_model")
    assert None not in read.values()


def test_card_tells_the_run_in_its_own_numbers(model):
    content = str(card_of(model, **EVERYTHING))
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    assert f"{num_parameters:,} parameters" in content
    assert "4 continuous latent tokens" in content
    assert "for 100 steps" in content
    assert "| shuffle, 5-6 swaps | 0.988 |" in content
    assert "| latents zeroed | 0.250 |" in content


def test_stages_are_told_apart(model):
    assert "Stage I:" in str(card_of(model, stage="align"))
    assert "Stage II:" in str(card_of(model, stage="answer"))


def test_unknown_results_are_an_absent_section(model):
    assert "## Results" not in str(card_of(model))
    assert "## Results" in str(card_of(model, results=RESULTS))


def test_citation_is_whole(model):
    citation = str(card_of(model)).partition("```bibtex")[2].partition("```")[0]
    assert citation.count("{") == citation.count("}")
    assert "eprint = {2605.26014}" in citation


def test_saved_card_is_read_back(model, tmp_path):
    card = card_of(model, **EVERYTHING)
    card.save(tmp_path / "README.md")
    again = type(card).load(tmp_path / "README.md")
    assert again.data.to_dict() == card.data.to_dict()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("base", ["Qwen/Qwen2.5-VL-3B-Instruct", "", None], ids=["on the Hub", "nameless", "a folder"])
def test_card_of_an_adapter_says_what_it_belongs_to_and_how_it_is_opened(base, tmp_path):
    storm = tiny_storm("qwen2_5_vl", num_latents=4)
    storm.name_or_path = str(tmp_path) if base is None else base
    card = card_of(get_peft_model(storm, default_lora(storm, r=2)))
    content = str(card)
    num_trained = sum(weight.numel() for weight in storm.parameters() if weight.requires_grad)
    assert f"LoRA adapter of {num_trained:,} parameters" in content
    assert "load_checkpoint" in content
    assert "AutoModel" not in content
    assert "None" not in content
    assert card.data.base_model == (base or None)
    assert (storm.name_or_path or "its base") in content
