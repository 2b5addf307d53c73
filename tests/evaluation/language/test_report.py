import json
from dataclasses import replace

import pytest
import torch
from transformers import AutoProcessor

from storm_hf.errors import CheckpointError, DatasetError
from storm_hf.evaluation.bootstrap import wilson_interval
from storm_hf.evaluation.language import LanguageMeasure, LanguageReport, measure_language
from storm_hf.model import StormForConditionalGeneration


TEXTS = ["The ball rolls left.", "Where is the red ball now?"]
PROMPTS = ("What is the capital of Italy?", "Say hello.", "Name a colour.", "How are you?")
BEFORE = LanguageMeasure("before", 24.0, 120, "0123456789abcdef", PROMPTS, ("Rome.", "Hello!", "Red.", ""), 48)
AFTER = replace(BEFORE, model="after", perplexity=30.0, answers=("The capital is Rome.", "the cup", "red", ""))


@pytest.fixture
def storm_and_processor(qwen_checkpoint):
    model = StormForConditionalGeneration.from_backbone(str(qwen_checkpoint), num_latents=3)
    return model.eval(), AutoProcessor.from_pretrained(qwen_checkpoint)


def test_report_compares_perplexities_and_counts_answers_that_are_the_same():
    report = LanguageReport(BEFORE, AFTER)
    assert report.perplexity_ratio == 1.25
    assert [pair.is_same for pair in report.pairs] == [True, False, True, False]
    assert [(pair.prompt, pair.before, pair.after) for pair in report.pairs][1] == ("Say hello.", "Hello!", "the cup")
    assert (report.kept.mean, report.kept.low, report.kept.high) == (0.5, *wilson_interval(0.5, 4))


def test_measure_and_report_are_read_as_they_were_written():
    report = LanguageReport(BEFORE, AFTER)
    assert LanguageMeasure.from_json(BEFORE.to_json()) == BEFORE
    assert LanguageReport.from_json(report.to_json()) == report


def test_json_of_a_report_has_what_follows_from_the_measures():
    written = json.loads(LanguageReport(BEFORE, AFTER).to_json())
    assert written["perplexity_ratio"] == 1.25
    assert written["kept"]["mean"] == 0.5
    assert written["pairs"][0] == {
        "prompt": PROMPTS[0],
        "before": "Rome.",
        "after": "The capital is Rome.",
        "is_same": True,
    }


@pytest.mark.parametrize("read", [LanguageMeasure.from_json, LanguageReport.from_json])
@pytest.mark.parametrize("text", ["", "[]", "{}", '{"before": 1, "after": 2}', '{"prompts": [], "answers": []}'])
def test_other_files_are_refused(read, text):
    with pytest.raises(DatasetError, match="Expected the JSON of a measure of language"):
        read(text)


@pytest.mark.parametrize(
    "other",
    [{"texts": "other"}, {"num_tokens": 121}, {"prompts": PROMPTS[::-1]}, {"max_new_tokens": 8}],
    ids=lambda other: next(iter(other)),
)
def test_measures_of_other_texts_prompts_or_tokenizers_are_not_compared(other):
    with pytest.raises(DatasetError, match=f"but {next(iter(other))} differ"):
        LanguageReport(BEFORE, replace(AFTER, **other))


def test_model_that_did_not_change_keeps_its_language(storm_and_processor):
    settings = {"texts": TEXTS, "prompts": ["Hi", "Where?"], "max_new_tokens": 4}
    first, second = (measure_language(*storm_and_processor, **settings, name=name) for name in ("a", "b"))
    report = LanguageReport(first, second)
    assert report.perplexity_ratio == 1
    assert first.answers == second.answers
    assert first.num_tokens > 10
    assert (first.model, second.model) == ("a", "b")


def test_model_with_other_weights_has_another_perplexity(storm_and_processor):
    model, processor = storm_and_processor
    settings = {"texts": TEXTS, "prompts": ["Hi"], "max_new_tokens": 1}
    before = measure_language(model, processor, **settings)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(0)
    after = measure_language(model, processor, **settings)
    assert after.perplexity == pytest.approx(model.get_output_embeddings().weight.shape[0], rel=1e-4)
    assert LanguageReport(before, after).perplexity_ratio != 1


def test_diverged_model_is_refused(storm_and_processor):
    model, processor = storm_and_processor
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="The perplexity of run is nan"):
        measure_language(model, processor, texts=TEXTS, prompts=["Hi"], name="run")


def test_measure_without_prompts_is_refused(storm_and_processor):
    with pytest.raises(DatasetError, match="Expected a plain prompt or more"):
        measure_language(*storm_and_processor, texts=TEXTS, prompts=[])
