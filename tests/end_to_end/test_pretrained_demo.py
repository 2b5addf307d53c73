"""The demo around a language model of one's own: wordings, rows that keep the language, and a report that says what is left.

The language model is a random one, put where the converted one lies, so that nothing is fetched.
"""

import dataclasses
import io

import pytest
import torch
from rich.console import Console
from tests.end_to_end.mini_demo import mini_recipe
from transformers import Qwen2_5_VLForConditionalGeneration

from storm_hf.atomic import read_json, write_json
from storm_hf.demo import DemoFolder, data, demo_recipe, language, run_demo
from storm_hf.demo.backbone import tiny_config, tiny_processor
from storm_hf.demo.language import read_language
from storm_hf.worlds import make_world


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recipe():
    few = {"num_train": 24, "num_gallery": 4, "num_per_depth": 2, "batch_size": 8, "language_batch_size": 2}
    depths = {depth: 2 for depth in range(7)}
    trainings = mini_recipe().trainings
    return dataclasses.replace(
        demo_recipe(backbone="smollm2"), **few, test_depths=depths, trainings=trainings, lora_rank=4, keep_language=1.0
    )


@pytest.fixture(scope="module")
def report(recipe, tmp_path_factory):
    """A finished demo that began with its backbone and its clips there."""
    folder = DemoFolder(tmp_path_factory.mktemp("pretrained"))
    with folder.claimed(recipe), pytest.MonkeyPatch.context() as patch:
        words = make_world(recipe.world, **recipe.knobs).vocabulary
        processor = tiny_processor(words, recipe.num_latents, recipe.frame_pixels)
        torch.manual_seed(0)
        backbone = Qwen2_5_VLForConditionalGeneration(tiny_config(processor, recipe.num_latents).vlm_config)
        backbone.save_pretrained(folder.backbone)
        processor.save_pretrained(folder.backbone)
        patch.setattr(language, "read_training_prompts", lambda: ["Name a colour.", "Name a tree."])
        patch.setattr(language, "read_training_texts", lambda: ["A boat lies in the harbour."])
        language.record_backbone(folder, recipe)
        data.render(folder, recipe, 1, lambda count: None)
        write_json(folder.path / "done" / "1_render", {"wall_seconds": 0, "cpu_seconds": 0, "peak_rss_mib": 0})
    return folder, run_demo(folder.path, recipe=recipe, console=Console(file=io.StringIO()))


def test_report_has_the_trained_variants_and_the_second_form(report, recipe):
    _, found = report
    assert set(found.arms) == {"direct", "align", "storm"} == set(found.open.arms)


def test_page_says_what_was_pretrained_and_what_is_left_of_the_language(report):
    folder, _ = report
    page = (folder.path / "report.html").read_text(encoding="utf-8")
    assert "SmolLM2-135M-Instruct, pretrained on text" in page
    assert "What it still says" in page
    assert "in wordings never trained on" in page
    spoken = read_language(read_json(folder.variant("storm") / "results.json"))
    assert spoken.before.prompts == spoken.after.prompts


def test_checkpoints_are_whole_models_though_an_adapter_was_trained(report):
    folder, _ = report
    for name in ("base", "direct", "align", "storm"):
        checkpoint = folder.checkpoint(name)
        assert (checkpoint / "model.safetensors").exists(), name
        assert not (checkpoint / "adapter_config.json").exists(), name


def test_questions_of_training_have_many_wordings_and_complete_replies(report):
    folder, _ = report
    rows = list(data.dataset(folder, "train", with_thoughts=False))
    assert len({row["usual_question"] for row in rows}) == 1 < len({row["question"] for row in rows})
    assert any(row["answer"] != row["outcome"] for row in rows)


def test_what_thinks_speaks_as_the_backbone_and_what_does_not_is_held_to_it(report, recipe):
    folder, _ = report
    for name, weight in {"base": 0, "arms/direct": recipe.keep_language, "arms/align": 0, "arms/storm": 0}.items():
        assert read_json(folder.path / name / "run_settings.json")["keep_language"] == weight, name
    for name in ("align", "storm"):
        spoken = read_language(read_json(folder.variant(name) / "results.json"))
        assert (spoken.after.answers, spoken.after.perplexity) == (spoken.before.answers, spoken.before.perplexity)
