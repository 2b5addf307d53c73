"""Plain rows: every form of text becomes tokens, and what a model predicts on them is recorded."""

import json

import pytest
import torch
from datasets import Dataset
from tests.training.tiny_videos import load_tiny

from storm_hf import answers_before, record_language
from storm_hf.errors import DatasetError
from storm_hf.evaluation.language import answer_plainly
from storm_hf.inputs.collator import AnswerCollator
from storm_hf.inputs.prompts import PromptEncoder
from storm_hf.training.language import encode_language, is_recorded, load_language
from storm_hf.training.language_loss import language_kl, stack_language, supervised_logits


ROWS = [
    {"prompt": "Where is the red ball?", "completion": "The ball is up."},
    {"text": "The ball rolls left. The ball is down now."},
    {
        "messages": [
            {"role": "user", "content": "What happens next?"},
            {"role": "assistant", "content": "The ball rolls right."},
        ]
    },
]


@pytest.fixture(scope="module")
def parts(qwen_checkpoint):
    return load_tiny(qwen_checkpoint, num_latents=3)


@pytest.fixture(scope="module")
def recorded(parts):
    return record_language(*parts, ROWS, top_k=16, batch_size=2)


def encode(parts, rows):
    model, processor = parts
    return encode_language(processor, model.config, rows)


def test_completion_or_whole_text_is_supervised(parts):
    model, processor = parts
    encoded = encode(parts, ROWS)
    texts = [
        processor.tokenizer.decode([token for token in row["labels"] if token != -100], skip_special_tokens=True)
        for row in encoded
    ]
    assert texts[0] == ROWS[0]["completion"]
    assert ROWS[1]["text"].endswith(texts[1])
    assert encoded[1]["labels"][1:] == encoded[1]["input_ids"][1:]
    assert texts[2] == "The ball rolls right."


def test_rows_have_no_latent_block(parts):
    tokens = {token for row in encode(parts, ROWS) for token in row["input_ids"]}
    assert not tokens & set(parts[0].config.latent_block_ids)


def test_own_columns_stay(recorded):
    assert {"prompt", "completion", "messages", "text"} <= set(recorded.column_names)
    assert recorded[0]["prompt"] == ROWS[0]["prompt"]


def test_tokens_and_predictions_are_those_of_the_batches_that_the_stages_train_on(parts):
    model, processor = parts
    conversations = [ROWS[0], ROWS[2]]
    collator = AnswerCollator(PromptEncoder(processor, model.config, num_latents=0))
    batch = collator(conversations)  # prompts padded on the left, answers on the right
    padded = model(**{name: value for name, value in batch.items() if name != "labels"}).logits[:, :-1]
    encoded = encode(parts, conversations).with_format("torch")
    logits, labels = supervised_logits(model, stack_language([encoded[0], encoded[1]], model.device))
    is_supervised = batch["labels"][:, 1:] != -100
    assert torch.equal(labels, batch["labels"][:, 1:][is_supervised])
    torch.testing.assert_close(logits, padded[is_supervised], atol=1e-4, rtol=1e-4)


def test_record_is_what_the_model_predicts(parts, recorded):
    model, _ = parts
    rows = [recorded.with_format("torch")[position] for position in range(3)]
    logits, labels = supervised_logits(model, stack_language(rows, model.device))
    ids, log_probs = (torch.cat([row[name] for row in rows]) for name in ("before_ids", "before_log_probs"))
    assert ids.shape == (len(labels), 16)
    torch.testing.assert_close(log_probs.exp().sum(dim=-1), torch.ones(len(labels)))
    assert language_kl(logits, ids, log_probs).abs().max() < 1e-5


def test_record_is_the_same_in_other_batches_and_leaves_the_model_as_it_was(parts, recorded):
    model, processor = parts
    model.train()
    again = record_language(model, processor, ROWS, top_k=16, batch_size=8)
    assert model.training
    model.eval()
    for row, other in zip(again, recorded, strict=True):
        assert row["labels"] == other["labels"]
        torch.testing.assert_close(torch.tensor(row["before_log_probs"]), torch.tensor(other["before_log_probs"]))


def test_record_is_saved_and_loaded(recorded, tmp_path):
    recorded.to_parquet(tmp_path / "language.parquet")
    loaded = load_language(str(tmp_path / "language.parquet"))
    assert is_recorded(loaded)
    assert loaded[:] == recorded[:]


def test_recorded_rows_can_be_shuffled_and_recorded_anew(parts, recorded):
    order = [2, 0]
    again = record_language(*parts, recorded.select(order), top_k=4)
    assert [row["labels"] for row in again] == [recorded[position]["labels"] for position in order]
    assert len(again[0]["before_ids"][0]) == 4


def test_rows_of_another_tokenizer_are_refused(parts, recorded):
    first = {**recorded[0], "input_ids": [7, *recorded[0]["input_ids"]]}
    with pytest.raises(DatasetError, match="another tokenizer or chat template"):
        encode(parts, Dataset.from_list([first]))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "Look.", "completion": "Up.", "video": "clip.mp4"}, "Row 1 .*text alone, got one with video"),
        ({"prompt": "Look."}, "Row 1"),
        ({"text": ""}, "Row 1 .*two tokens or more"),
        ({"number": 1}, "Row 1 .*Expected a row"),
    ],
    ids=["clip", "no completion", "empty", "other"],
)
def test_other_rows_are_refused_by_name(parts, row, message):
    with pytest.raises(DatasetError, match=message):
        encode(parts, [{"text": "The ball rolls left."}, row])


def test_no_rows_are_refused(parts):
    with pytest.raises(DatasetError, match="Expected plain rows, got none"):
        encode(parts, [])


def test_answers_before_are_the_models_own(parts):
    prompts = ["What happens next?", "Where is the red ball?"]
    rows = answers_before(*parts, prompts, max_new_tokens=6)
    assert rows["prompt"][:] == prompts
    assert rows["completion"][:] == answer_plainly(*parts, prompts, 6)


def test_answer_of_the_greatest_length_counts_as_cut_off(parts, monkeypatch):
    answers = ["The ball is up.", " ".join(["up"] * 20)]
    monkeypatch.setattr("storm_hf.training.language.answer_plainly", lambda *args, **others: answers)
    rows = answers_before(*parts, ["Where is it?", "Say more."], max_new_tokens=20)
    assert rows["is_complete"][:] == [True, False]


def test_end_of_an_answer_that_was_cut_off_is_not_supervised(parts):
    row = {"prompt": "What happens next?", "completion": "The ball rolls"}
    whole, cut = encode(parts, [{**row, "is_complete": True}, {**row, "is_complete": False}])
    assert cut["input_ids"] == whole["input_ids"]
    assert (whole["labels"][-1], cut["labels"][-1]) == (parts[1].tokenizer.eos_token_id, -100)
    assert cut["labels"][:-1] == whole["labels"][:-1]


def test_text_file_has_a_row_for_each_paragraph(tmp_path):
    (tmp_path / "plain.txt").write_text("One.\nStill one.\n\nTwo.\n")
    assert load_language(str(tmp_path / "plain.txt"))["text"][:] == ["One. Still one.", "Two."]


def test_lines_of_json_are_rows(tmp_path):
    (tmp_path / "plain.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS[:1] * 2))
    assert load_language(str(tmp_path / "plain.jsonl")).to_list() == ROWS[:1] * 2


def test_other_files_are_refused(tmp_path):
    (tmp_path / "plain.csv").write_text("text\nOne.\n")
    with pytest.raises(DatasetError, match=r"Expected plain rows in a file of the kind \.txt"):
        load_language(str(tmp_path / "plain.csv"))
