"""Language of a pretrained backbone in the demo, on a tiny one that babbles."""

import dataclasses
import json

import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from storm_hf.demo import DemoFolder, demo_recipe, language
from storm_hf.demo.backbone import tiny_config, tiny_processor
from storm_hf.model import StormForConditionalGeneration, storm_processor
from storm_hf.training.language import is_recorded


PROMPTS = ["Say a word.", "Count to two."]
TEXTS = ["A boat lies in the harbour.", "Rain fell on the roof all night."]


@pytest.fixture
def recipe():
    return dataclasses.replace(demo_recipe(backbone="smollm2"), frame_pixels=1024, keep_language=1.0)


@pytest.fixture
def folder(recipe, tmp_path, monkeypatch):
    """A demo whose backbone is a random one, with few texts."""
    for name, values in (("read_training_prompts", PROMPTS), ("read_training_texts", TEXTS)):
        monkeypatch.setattr(language, name, lambda values=values: values)
    measure = language.measure_language
    few = {"prompts": PROMPTS, "texts": TEXTS, "max_new_tokens": 4}
    monkeypatch.setattr(language, "measure_language", lambda *args, **named: measure(*args, **{**named, **few}))
    monkeypatch.setattr(language, "_ANSWER_TOKENS", 4)
    folder = DemoFolder(tmp_path)
    processor = tiny_processor(["red", "blue"], recipe.num_latents, recipe.frame_pixels)
    torch.manual_seed(0)
    backbone = Qwen2_5_VLForConditionalGeneration(tiny_config(processor, recipe.num_latents).vlm_config)
    backbone.save_pretrained(folder.backbone)
    processor.save_pretrained(folder.backbone)
    return folder


def test_rows_hold_the_answers_of_the_backbone_and_plain_text_with_its_predictions(folder, recipe):
    language.record_backbone(folder, recipe)
    rows = language.recorded_rows(folder)
    assert is_recorded(rows)
    assert [row["text"] for row in rows if row["text"]] == TEXTS
    answered = {row["prompt"]: row["completion"] for row in rows if row["prompt"]}
    assert set(answered) <= set(PROMPTS)
    before = language.read_before(folder)
    assert dict(zip(before.prompts, before.answers, strict=True)).items() >= answered.items()


def test_untrained_model_speaks_as_the_backbone(folder, recipe):
    language.record_backbone(folder, recipe)
    processor = storm_processor(str(folder.backbone), recipe.num_latents)
    model = StormForConditionalGeneration.from_backbone(str(folder.backbone), recipe.num_latents, processor=processor)
    model.save_pretrained(folder.storm)
    processor.save_pretrained(folder.storm)
    report = language.compare_language(folder, folder.storm, "storm")
    assert report.perplexity_ratio == pytest.approx(1, abs=1e-5)
    assert report.before.answers == report.after.answers
    kept = language.read_language({"language": json.loads(report.to_json())})
    assert kept == report


def test_nothing_is_recorded_where_nothing_is_to_be_kept(folder, recipe):
    language.record_backbone(folder, dataclasses.replace(recipe, keep_language=0.0))
    assert [path.name for path in folder.language.iterdir()] == ["before.json"]
