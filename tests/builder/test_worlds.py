"""A world is one generator of the builder: what it builds is what the world renders."""

import numpy as np
import pytest

from storm_hf.builder import ThoughtsBuilder, ThoughtsRecipe
from storm_hf.curriculum.reasoning import split_steps
from storm_hf.evaluation.batch import expected_choice, read_reply
from storm_hf.target_trajectory import load_thoughts
from storm_hf.thought_video import WorldRecipe, render_world
from storm_hf.video import read_video


@pytest.mark.parametrize("canvas", [None, [16, 96]])
def test_clips_of_a_world_are_those_that_it_renders_and_its_rows_name_their_episode(canvas, tmp_path, qwen_checkpoint):
    world = {"world": "shuffle", "splits": {"train": {"count": 2}, "test": {"depths": {5: 1}}}, "canvas": canvas}
    content = {"output_dir": str(tmp_path / "built"), "world": world, "generator": {"simulator": {}}}
    models = {"encoder": {"model": str(qwen_checkpoint)}, "targets": {"num_latents": 6, "rank": 2}}
    ThoughtsBuilder(ThoughtsRecipe.from_dict({**content, **models})).build()
    rendered = render_world(WorldRecipe.from_dict(world), tmp_path / "rendered")
    for split, rows in load_thoughts(tmp_path / "built").items():
        for row, example in zip(rows, rendered[split], strict=True):
            assert (row["seed"], row["depth"]) == (example.thought.seed, example.depth)
            assert np.array_equal(read_video(row["video"]).frames, read_video(example.video).frames)
            assert np.array_equal(read_video(row["thought_video"]).frames, example.thought.read())


def test_data_set_in_other_wordings_is_read_by_its_outcome(tmp_path, qwen_checkpoint):
    splits = {"train": {"count": 2, "wordings": "trained"}, "test": {"count": 1}}
    content = {"output_dir": str(tmp_path), "world": {"world": "shuffle", "splits": splits}}
    models = {"encoder": {"model": str(qwen_checkpoint)}, "targets": {"num_latents": 6, "rank": 2}}
    ThoughtsBuilder(ThoughtsRecipe.from_dict({**content, **models, "generator": {"simulator": {}}})).build()
    rows = load_thoughts(tmp_path)
    for row in rows["train"]:
        assert row["options"] == []
        assert len(split_steps(row["spoken_chain"])) == len(row["states"]) == 6
        assert row["usual_question"] == "Which cup holds the ball at the end?"
        assert read_reply(row["answer"], row) == expected_choice(row) == row["outcome"]
    (usual,) = rows["test"]
    assert usual["options"] == usual["choices"]
    assert usual["answer"] == usual["outcome"] == expected_choice(usual)
