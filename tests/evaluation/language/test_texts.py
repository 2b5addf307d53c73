import re

import pytest

from storm_hf.errors import DatasetError
from storm_hf.evaluation.language.texts import (
    read_held_out_prompts,
    read_held_out_texts,
    read_prompts,
    read_texts,
    read_training_prompts,
    read_training_texts,
)


def words(text):
    return " ".join(re.findall(r"\w+", text.casefold()))


def test_shipped_prompts_are_many_and_all_different():
    trained, held_out = read_training_prompts(), read_held_out_prompts()
    assert len(trained) >= 400
    assert len(held_out) == 50
    assert len({words(prompt) for prompt in (*trained, *held_out)}) == len(trained) + len(held_out)


def test_shipped_prose_has_some_2500_words_in_each_part_and_shares_no_sentence():
    trained, held_out = read_training_texts(), read_held_out_texts()
    for texts in (trained, held_out):
        assert 2_400 <= sum(len(text.split()) for text in texts) <= 2_700
        assert len(texts) >= 20
    sentences = [{words(part) for text in texts for part in re.split(r"[.!?]", text)} for texts in (trained, held_out)]
    assert sentences[0] & sentences[1] == {""}


def test_shipped_texts_are_printable_and_without_control_tokens():
    parts = (*read_training_prompts(), *read_held_out_prompts(), *read_training_texts(), *read_held_out_texts())
    assert all(part.isprintable() and "<|" not in part and part == part.strip() for part in parts)


def test_prompts_of_a_file_are_its_lines_and_texts_its_paragraphs(tmp_path):
    file = tmp_path / "plain.txt"
    file.write_text("One line\nbroken.\n\n \nAnother.\n")
    assert read_prompts(file) == ["One line", "broken.", "Another."]
    assert read_texts(file) == ["One line broken.", "Another."]


@pytest.mark.parametrize("read", [read_prompts, read_texts])
def test_empty_missing_and_unreadable_files_are_refused_by_name(read, tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\xff")
    for name, reason in (("empty", "but it is empty"), ("missing", "No such file"), ("bytes", "it is not UTF-8")):
        with pytest.raises(DatasetError, match=rf"{name}\.txt.*{reason}|{reason}"):
            read(tmp_path / f"{name}.txt")
