"""Captioned videos become rows that any trainer takes."""

import pytest
from datasets import Dataset

from storm_hf.errors import DatasetError
from storm_hf.training.loading import caption_rows


ROW = {
    "video": "clip.mp4",
    "clip_caption": "a ball rolls .",
    "thought_video": "thought.mp4",
    "thought_caption": "the ball stops .",
    "answer": "left",
}


def test_both_videos_of_a_row_are_described():
    rows = caption_rows(Dataset.from_list([ROW])).to_list()
    assert [(row["video"], row["answer"]) for row in rows] == [
        ("clip.mp4", "a ball rolls ."),
        ("thought.mp4", "the ball stops ."),
    ]
    assert {row["question"] for row in rows} == {"Describe the clip."}
    assert [row["options"] for row in rows] == [None, None]


def test_row_without_a_thought_video_gives_its_clip_alone():
    without = {**ROW, "thought_video": None, "thought_caption": None}
    assert caption_rows(Dataset.from_list([ROW, without]))["video"] == ["clip.mp4", "clip.mp4", "thought.mp4"]


@pytest.mark.parametrize("name", ["video", "clip_caption", "thought_video", "thought_caption"])
def test_missing_column_is_named(name):
    dataset = Dataset.from_list([{key: value for key, value in ROW.items() if key != name}])
    with pytest.raises(DatasetError, match=f"but {name} is missing"):
        caption_rows(dataset)


@pytest.mark.parametrize("caption", [None, ""])
def test_video_without_a_caption_is_refused(caption):
    with pytest.raises(DatasetError, match="some rows of `clip_caption` are empty"):
        caption_rows(Dataset.from_list([ROW, {**ROW, "clip_caption": caption}]))
