import json

import pytest
from tests.evaluation.results.logged import mmvu, mvbench, tempcompass, videomme, write_samples

from storm_hf.errors import DatasetError
from storm_hf.evaluation.results import read_samples
from storm_hf.evaluation.results.samples import read_document


def test_samples_are_read_by_variant_and_task_with_their_costs(tmp_path):
    counts = [{"output_tokens": 3, "forward_passes": 12, "seconds": 0.5, "latents": "own"}]
    write_samples(tmp_path, "storm", "videomme", [(videomme(0), "A"), (videomme(1), "B")], token_counts=counts)
    write_samples(tmp_path, "direct", "mvbench_action_count", [(mvbench(), "(A)")], token_counts=[None])
    samples = read_samples(tmp_path)
    assert {variant: list(tasks) for variant, tasks in samples.items()} == {
        "direct": ["mvbench_action_count"],
        "storm": ["videomme"],
    }
    assert [sample.completion for sample in samples["storm"]["videomme"]] == ["A", "B"]
    assert samples["storm"]["videomme"][0].cost == {"output_tokens": 3.0, "forward_passes": 12.0, "seconds": 0.5}
    assert samples["direct"]["mvbench_action_count"][0].cost == {}


def test_the_raw_answer_goes_before_the_filtered_one(tmp_path):
    write_samples(tmp_path, "cot", "videomme", [(videomme(0), "A")], resps=["<think>so</think>A"])
    assert read_samples(tmp_path)["cot"]["videomme"][0].completion == "<think>so</think>A"


def test_a_line_separator_within_an_answer_ends_no_sample(tmp_path):
    path = write_samples(tmp_path, "storm", "videomme", [(videomme(0), "A")])
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"filtered_resps": ["A\u2028B"]}, ensure_ascii=False) + "\n"
    )
    assert read_samples(tmp_path)["storm"]["videomme"][0].completion == "A\u2028B"


def test_of_two_files_of_a_task_the_later_counts(tmp_path):
    path = write_samples(tmp_path, "storm", "videomme", [(videomme(0), "A")])
    path.rename(path.with_name("20260102_samples_videomme.jsonl"))
    path = write_samples(tmp_path, "storm", "videomme", [(videomme(0), "B")])
    path.rename(path.with_name("20260101_samples_videomme.jsonl"))
    assert read_samples(tmp_path)["storm"]["videomme"][0].completion == "A"


def test_samples_without_their_documents_are_refused_with_what_to_do(tmp_path):
    path = write_samples(tmp_path, "storm", "videomme", [(videomme(0), "A")])
    sample = json.loads(path.read_text())
    del sample["doc"]
    path.write_text(json.dumps(sample))
    with pytest.raises(DatasetError, match="storm evaluate"):
        read_samples(tmp_path)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="there are none"):
        read_samples(tmp_path)


def test_options_lose_their_letters_and_answers_become_labels():
    assert read_document("videomme", videomme(0)).options == ("red.", "green.", "blue.", "grey.")
    assert read_document("mvbench_action_count", mvbench(answer="it runs")).answer == "B"
    choice = tempcompass("What happens?\nA. it runs\nB. it waits. Then it runs", "B. it waits. Then it runs")
    question = read_document("tempcompass_mc", choice)
    assert (question.text, question.options, question.answer) == (
        "What happens?",
        ("it runs", "it waits. Then it runs"),
        "B",
    )
    caption = tempcompass("Which?\nOption 1: It runs.\nOption 2: It waits.", "Option 2: It waits.")
    question = read_document("tempcompass_caption_matching", caption)
    assert (question.option_labels, question.answer, question.answer_text) == (
        ("Option 1", "Option 2"),
        "Option 2",
        "It waits.",
    )


def test_the_judge_of_a_caption_gets_its_multiple_choice_question():
    document = tempcompass("Describe it.", "", mc_question="What?\nA. it runs\nB. it waits", mc_answer="A. it runs")
    question = read_document("tempcompass_captioning", document)
    assert (question.kind, question.text, question.answer) == ("captioning", "What?", "A")


def test_subjects_of_mmvu_have_a_discipline():
    groups = read_document("mmvu_val", mmvu(subject="Pharmacy")).groups
    assert groups == {"discipline": "Healthcare", "subject": "Pharmacy", "kind": "multiple-choice"}
    assert read_document("mmvu_val", mmvu("open-ended", "DNA")).options == ()


@pytest.mark.parametrize("task", ["mme", "videommex"])
def test_a_task_of_another_benchmark_is_refused(task):
    with pytest.raises(DatasetError, match="Expected a task of"):
        read_document(task, videomme(0))


def test_a_document_without_a_field_is_refused():
    document = videomme(0)
    del document["domain"]
    with pytest.raises(DatasetError, match="domain"):
        read_document("videomme", document)
