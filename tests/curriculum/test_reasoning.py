"""Answers that hold what is left of a written chain of thought."""

import pytest
from datasets import Dataset
from tests.training.tiny_videos import write_thoughts

from storm_hf.curriculum.reasoning import replace_reasoning, split_steps, write_rows
from storm_hf.errors import DatasetError
from storm_hf.training.loading import load_rows
from storm_hf.worlds import make_world


CHAIN = "step one swap red blue , ball at blue . step two swap none none , ball at blue ."


@pytest.fixture
def rows():
    return Dataset.from_dict(
        {"id": ["a", "b"], "answer": ["blue", "red"], "steps": [CHAIN, "ball at red ."], "depth": [2, 1]}
    )


@pytest.mark.parametrize(
    ("chain", "steps"),
    [
        (CHAIN, ["step one swap red blue , ball at blue .", "step two swap none none , ball at blue ."]),
        ("It is 3.5 m. Is it far? No! So near", ["It is 3.5 m.", "Is it far?", "No!", "So near"]),
        ("<<2+3=5>>\n<<5*2=10>> . Then\n\nend\n", ["<<2+3=5>>", "<<5*2=10>> . Then", "end"]),
        ("  one step  ", ["one step"]),
        ("", []),
    ],
    ids=["world", "sentences", "lines", "one", "none"],
)
def test_step_is_a_line_or_else_a_sentence(chain, steps):
    assert split_steps(chain) == steps


@pytest.mark.parametrize("name", ["shuffle", "bounce", "order"])
def test_chain_of_a_world_has_a_step_for_each_of_its_steps(name):
    world = make_world(name)
    for seed in range(5):
        assert len(split_steps(world.describe(seed).chain_of_thought)) == world.num_steps


def test_first_steps_are_left_out_and_the_rest_stands_before_the_answer(rows):
    assert replace_reasoning(rows, "steps", 1)["answer"] == ["step two swap none none , ball at blue . blue", "red"]
    assert replace_reasoning(rows, "steps", 2)["answer"] == ["blue", "red"]
    assert replace_reasoning(rows, "steps", 9)["answer"] == ["blue", "red"]


def test_nothing_replaced_is_the_text_chain_of_thought(rows):
    assert replace_reasoning(rows, "steps", 0)["answer"] == [f"{CHAIN} blue", "ball at red . red"]


def test_other_columns_and_their_order_stay(rows):
    replaced = replace_reasoning(rows, "steps", 1)
    assert replaced.column_names == rows.column_names
    assert replaced.features == rows.features
    assert replaced.remove_columns("answer").to_list() == rows.remove_columns("answer").to_list()


def test_missing_column_is_named(rows):
    with pytest.raises(DatasetError, match=r"but chain is missing from \['answer', 'depth', 'id', 'steps'\]"):
        replace_reasoning(rows, "chain", 1)


def test_row_without_a_chain_is_named():
    rows = Dataset.from_dict({"answer": ["blue", "red"], "steps": [CHAIN, None]})
    with pytest.raises(DatasetError, match="`steps` of row 1 is empty"):
        replace_reasoning(rows, "steps", 1)


def test_written_rows_find_their_videos_and_hold_nothing_of_stage_one(tmp_path):
    source = write_thoughts(tmp_path / "thoughts", num_rows=4)
    folder = write_rows(str(source), None, tmp_path / "stage" / "rows", "thought_caption", 0)
    before, after = load_rows(str(source)), load_rows(str(folder))
    assert after.keys() == before.keys()
    assert after["train"]["video"] == before["train"]["video"]
    assert after["train"][0]["answer"] == "The ball is left now. left"
    assert "thought_features" not in after["train"].column_names
    assert [path.name for path in folder.parent.iterdir()] == ["rows"], "nothing unfinished is left"


def test_rows_are_written_once_and_whole(tmp_path):
    source = write_thoughts(tmp_path / "thoughts", num_rows=4)
    with pytest.raises(DatasetError, match="chain is missing"):
        write_rows(str(source), None, tmp_path / "rows", "chain", 0)
    assert not (tmp_path / "rows").exists()
    folder = write_rows(str(source), None, tmp_path / "rows", "thought_caption", 0)
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}
    write_rows(str(source), None, tmp_path / "rows", "thought_caption", 0)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")} == written
