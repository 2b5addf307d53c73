"""The card of a model renders from a run's own values and says nothing that is not known."""

import re
from dataclasses import replace

import pytest
import yaml
from huggingface_hub import ModelCard
from peft import get_peft_model
from PIL import Image
from tests.hub.card_values import ADAPTER, ALIGN, ANSWER, MODELS
from tests.hub.test_cards import PLACEHOLDERS
from tests.tiny import tiny_storm
from tests.video.clips import encode, numbered_frames, numbers

from storm_hf.errors import PublicationError
from storm_hf.hub.card_results import (
    BenchmarkResult,
    CausalUse,
    InterventionResult,
    benchmark_results,
    causal_use,
    latency,
)
from storm_hf.hub.model_card import ModelFacts, facts_of_model, model_card, read_facts, write_card
from storm_hf.hub.stages_picture import draw_stages
from storm_hf.training.peft import default_lora


LEAST = ModelFacts(name="some", stage="base", backbone="qwen2_5_vl", num_latents=4, num_parameters=1000)


def interval(mean):
    return {"mean": mean, "low": mean, "high": mean}


DIAGNOSIS = {
    "verdict": {"headline": "Used.", "sentence": "Because."},
    "effects": {
        "own": {"label": "Its own latents", "accuracy": interval(0.9), "follows_donor": None},
        "donor": {"label": "Another clip's", "accuracy": interval(0.1), "follows_donor": interval(0.8)},
    },
    "command": "storm diagnose /home/somebody/runs/storm",
    "dataset": "/home/somebody/data",
    "num_questions": 40,
    "chance": 0.25,
}
SCORE = {"accuracy": 0.625, "standard_error": 0.01, "num_counted": 900}
REPORT = {
    "command": "storm evaluate --model /home/somebody/storm --tasks mvbench",
    "results": [
        {"arm": "storm", "part": "mvbench", "group": None, "scorer": "strict", "judge": None, "score": SCORE},
        {"arm": "storm", "part": "mvbench", "group": "task: a", "scorer": "strict", "judge": None, "score": SCORE},
        {"arm": "direct", "part": "mvbench", "group": None, "scorer": "strict", "judge": None, "score": SCORE},
    ],
    "costs": [
        {"arm": "storm", "part": "mvbench", "seconds": 1.5, "forward_passes": 10.0, "output_tokens": 2.0},
        {"arm": "direct", "part": "mvbench", "seconds": 0.5, "forward_passes": None, "output_tokens": 2.0},
    ],
}


def metadata(facts):
    return yaml.safe_load(str(model_card(facts)).split("---\n")[1])


@pytest.mark.parametrize("stage", ["base", "align", "answer"])
@pytest.mark.parametrize("is_adapter", [False, True])
def test_card_of_which_little_is_known_has_no_placeholder(stage, is_adapter):
    content = str(model_card(replace(LEAST, stage=stage, is_adapter=is_adapter)))
    for placeholder in PLACEHOLDERS:
        assert placeholder not in content, placeholder
    for section in ("## Results", "## What an answer costs", "## Licences"):
        assert section not in content


def test_metadata_is_what_the_hub_reads():
    read = metadata(ANSWER)
    assert read["library_name"] == "transformers"
    assert read["pipeline_tag"] == "image-text-to-text"
    assert read["license"] == "apache-2.0"
    assert {"storm", "storm-answer", "video", "latent-reasoning"} <= set(read["tags"])
    assert len(read["tags"]) == len(set(read["tags"]))
    assert metadata(ADAPTER)["base_model_relation"] == "adapter"
    assert metadata(ADAPTER)["datasets"] == ["storm-hf/storm-thoughts"]
    assert not {"license", "base_model", "datasets", "model-index"} & set(metadata(LEAST))


def test_licence_that_the_hub_does_not_list_is_named_by_the_backbones():
    other = replace(LEAST, license="other", backbone_license="Qwen Research")
    assert metadata(other)["license_name"] == "qwen-research"
    assert "license_name" not in metadata(replace(other, license="apache-2.0"))


def test_result_is_an_evaluation_with_its_command_and_scorer():
    card = ModelCard(str(model_card(ANSWER)))
    (result,) = card.data.eval_results
    assert result.metric_value == 1.0
    assert result.metric_args == {"scorer": "exact option", "command": "storm demo"}
    assert card.data.model_name == "storm-shuffle"


def test_tables_have_their_numbers_and_commands():
    content = str(model_card(ANSWER))
    assert "| shuffle, 5 or 6 swaps | 1.000 | 512 | exact option |" in content
    assert "| Zeros | 0.252 (0.216 to 0.291) |  |" in content
    assert "| Latents of a clip with another answer | 0.000 (0.000 to 0.007) | 1.000 |" in content
    assert "| chain of thought in sentences | 61.0 | 1.000 |" in content
    for command in ("storm demo", ANSWER.causal_use.command, ANSWER.latency.command):
        assert f"```shell\n{command}\n```" in content


def test_unmeasured_use_of_latents_is_said_and_not_praised():
    assert "This was not measured yet: `storm diagnose --model some --dataset DATA --out runs/diagnosis`" in str(
        model_card(LEAST)
    )
    assert "not measured" not in str(model_card(ANSWER))


@pytest.mark.parametrize("name", sorted(MODELS))
def test_facts_are_read_back_from_beside_the_card(name, tmp_path):
    write_card(MODELS[name], tmp_path)
    assert read_facts(tmp_path) == MODELS[name]
    assert (tmp_path / "README.md").read_text() == str(model_card(MODELS[name]))
    with Image.open(tmp_path / "assets" / "stages.png") as picture:
        assert picture.size == (1720, 744)


def test_diagnosis_becomes_the_table_without_folders_of_this_machine():
    use = causal_use(DIAGNOSIS)
    assert isinstance(use, CausalUse)
    assert [(row.what, row.accuracy, row.follows_donor) for row in use.rows] == [
        ("Its own latents", 0.9, None),
        ("Another clip's", 0.1, 0.8),
    ]
    assert (use.command, use.dataset) == ("storm diagnose storm", "data")
    assert causal_use({**DIAGNOSIS, "command": ""}).command is None
    quoted = "storm diagnose --model=/home/somebody/storm --dataset '/home/somebody/my clips'"
    assert causal_use({**DIAGNOSIS, "command": quoted}).command == "storm diagnose --model=storm --dataset 'my clips'"


def test_report_of_benchmarks_becomes_results_and_costs():
    (result,) = benchmark_results(REPORT)
    assert (result.benchmark, result.accuracy, result.num_questions) == ("mvbench", 0.625, 900)
    assert (result.scorer, result.command) == ("strict", "storm evaluate --model storm --tasks mvbench")
    measured = latency(REPORT)
    assert measured.command == result.command
    assert [(cost.way, cost.seconds, cost.forward_passes) for cost in measured.costs] == [
        ("storm", 1.5, 10),
        ("direct", 0.5, None),
    ]


def test_cost_of_one_variant_alone_is_no_comparison():
    assert latency({**REPORT, "costs": REPORT["costs"][:1]}) is None


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [({"command": None}, "which command made it"), ({"results": REPORT["results"][2:]}, "it has direct")],
)
def test_report_that_cannot_be_shown_is_refused(changed, sentence):
    with pytest.raises(PublicationError, match=sentence):
        benchmark_results({**REPORT, **changed})


@pytest.mark.parametrize("num_latents", [0, 1, 4, 64])
def test_picture_is_drawn_for_any_number_of_latents(num_latents):
    assert draw_stages(num_latents).startswith(b"\x89PNG")


def test_model_says_what_it_is():
    model = tiny_storm("qwen2_5_vl", num_latents=4)
    model.config.trained_on = ["world:shuffle"]
    facts = facts_of_model(model, name="some", stage="align", num_steps=100)
    assert facts.num_parameters == sum(weight.numel() for weight in model.parameters())
    assert (facts.num_latents, facts.backbone, facts.worlds) == (4, "qwen2_5_vl", ("shuffle",))
    assert "for 100 steps" in str(model_card(facts))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("base", ["Qwen/Qwen2.5-VL-3B-Instruct", "", None], ids=["on the Hub", "nameless", "a folder"])
def test_card_of_an_adapter_says_what_it_belongs_to_and_how_it_is_opened(base, tmp_path):
    storm = tiny_storm("qwen2_5_vl", num_latents=4)
    storm.name_or_path = str(tmp_path) if base is None else base
    facts = facts_of_model(get_peft_model(storm, default_lora(storm, r=2)), name="me/lora", stage="align")
    card = model_card(facts)
    num_trained = sum(weight.numel() for weight in storm.parameters() if weight.requires_grad)
    assert f"LoRA adapter of {num_trained:,} parameters" in card.content
    assert 'load_checkpoint("me/lora")' in card.content
    assert "AutoModel" not in card.content
    assert str(tmp_path) not in card.content
    assert card.data.base_model == (base or None)
    assert (base or "its base") in card.content


def test_share_of_answers_from_the_latents_alone_is_told_where_there_was_one():
    sentence = "In 50 % of the rows the answer came from the latents alone, without the clip."
    for facts in (ALIGN, ANSWER):
        assert sentence in str(model_card(replace(facts, bottleneck_share=0.5)))
        assert "latents alone" not in str(model_card(facts))


def test_card_says_when_latents_keep_to_their_step():
    for attention, is_said in {"full": False, "step": True}.items():
        facts = facts_of_model(tiny_storm("qwen2_5_vl", latent_attention=attention), name="some", stage="align")
        assert ("its own stretch of the clip" in str(model_card(facts))) is is_said


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        (None, None),
        (
            {"question_style": "letters", "question_forms": ["options"], "num_frames": 6},
            "on questions with options, with options listed as `A.`, `B.`, ... and answered by their letter, and on 6 frames of",
        ),
        (
            {"question_style": "words", "question_forms": ["options", "open"], "fps": 2, "max_frames": 64},
            "on questions, with options named as `Answer with one word: left or right.`, and on 2 frames a second, 64 at most of",
        ),
        (
            {"question_style": "none", "question_forms": ["open"], "max_frames": 32},
            "without options, and on at most 32",
        ),
    ],
)
def test_card_tells_how_the_model_was_asked(prompt, said):
    model = tiny_storm("qwen2_5_vl", storm_prompt=prompt)
    facts = facts_of_model(model, name="some", stage="answer")
    assert ModelFacts.from_json(facts.to_json()) == facts
    text = str(model_card(facts))
    assert "  \n\n\n" not in text
    if said is None:
        assert "ask it alike" not in text
    else:
        assert said in text
        shown = {"num_frames": "num_frames=6", "fps": "fps=2", "max_frames": "sample_indices_fn=evenly"}
        assert f'load_video("clip.mp4", {next(call for name, call in shown.items() if name in prompt)})' in text


@pytest.mark.parametrize(("num_frames", "num_read"), [(7, 7), (64, 32)])
def test_quick_start_reads_short_and_long_clips_to_their_ends(num_frames, num_read, tmp_path):
    clip = encode(tmp_path / "clip.mp4", numbered_frames(num_frames))
    text = str(model_card(facts_of_model(tiny_storm("qwen2_5_vl"), name="some", stage="answer")))
    reading = re.search(r"^(import numpy.*?load_video)$.*^(def evenly.*?)^content", text, re.DOTALL | re.MULTILINE)
    found = {}
    exec("\n".join(reading.groups()).replace("clip.mp4", str(clip)), found)
    shown = numbers(found["frames"])
    assert (len(shown), shown[0], shown[-1]) == (num_read, 0, num_frames - 1)


def test_words_of_a_report_write_no_markup():
    markup = "x | 9 |\n\n# Injected\n\n<script>alert(1)</script> [click](javascript:x)"
    result = BenchmarkResult(benchmark=markup, accuracy=0.5, scorer=markup, command="storm evaluate\n```\n# Injected")
    use = CausalUse(
        headline=markup, sentence=markup, rows=(InterventionResult(what=markup, accuracy=0.5),), command="a\n```\nb"
    )
    facts = ModelFacts(
        name="me/storm",
        stage="answer",
        backbone="x",
        num_latents=2,
        num_parameters=1,
        results=(result,),
        causal_use=use,
    )
    content = str(model_card(facts)).partition("# storm")[2]
    assert "\n# Injected" not in content
    assert "<script" not in content
    assert " [click]" not in content
    assert content.count("```") % 2 == 0
    assert "storm evaluate ''' # Injected" in content


@pytest.mark.parametrize("has_worlds", [True, False])
def test_later_stage_names_base_data_and_language_of_the_folder_that_it_started_from(tmp_path, has_worlds):
    earlier = ModelFacts(
        name="align", stage="align", backbone="x", num_latents=2, num_parameters=1,
        base_model="you/base", datasets=("me/thoughts",), languages=("de",),
    )  # fmt: skip
    write_card(earlier, tmp_path)
    model = tiny_storm("qwen2_5_vl", trained_on=["world:shuffle"] if has_worlds else None)
    model.name_or_path = str(tmp_path)
    metadata = model_card(
        facts_of_model(model, name="me/storm", stage="answer", datasets=("me/answers",))
    ).data.to_dict()
    assert metadata["base_model"] == "you/base"
    assert metadata["datasets"] == ["me/thoughts", "me/answers"]
    assert metadata["language"] == [("en" if has_worlds else "de")]


def test_card_says_what_a_thought_adapter_leaves_as_it_was():
    model = tiny_storm("qwen2_5_vl")
    without = str(model_card(facts_of_model(model, name="some", stage="answer")))
    model.add_thought_adapter(r=2, lora_alpha=4)
    text = str(model_card(facts_of_model(model, name="some", stage="answer")))
    for words in ("an adapter of rank 2, which acts from the first latent on", "transformers 5.24, `peft` and `av`"):
        assert words in text
        assert words not in without
