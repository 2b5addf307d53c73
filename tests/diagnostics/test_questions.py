import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.diagnostics.thinker import NUM_LATENTS
from tests.diagnostics.thoughts import write_model_and_thoughts

from storm_hf.diagnostics.questions import read_questions
from storm_hf.errors import DatasetError
from storm_hf.target_trajectory import TargetTrajectory


SIZES = {"num_latents": NUM_LATENTS, "hidden_size": 128}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_model_and_thoughts(tmp_path_factory.mktemp("questions"))


def read(run, **options):
    return read_questions(str(run), **{**SIZES, **options})


def test_data_set_brings_questions_thoughts_states_and_simulator(run):
    found = read(run / "data")
    assert len(found.rows) == len(set(found.clips)) == 6
    assert found.targets.shape == (6, NUM_LATENTS, 128)
    assert found.states.shape == (6, NUM_LATENTS)
    assert found.chance == 0.25
    assert found.world.name == "shuffle"
    assert found.world.num_steps == NUM_LATENTS
    assert found.absent == {}


def test_questions_in_other_wordings_have_the_same_simulator_and_chance(tmp_path):
    found = read(write_model_and_thoughts(tmp_path, wordings="held_out") / "data")
    assert len({row["question"] for row in found.rows}) > 1
    assert found.world.name == "shuffle"
    assert found.chance == 0.25
    assert found.absent == {}


def test_run_of_the_demo_is_read_through_its_data(run):
    assert read(run).clips == read(run / "data").clips


def test_rows_of_ones_own_are_questions_without_thoughts(run, tmp_path):
    built = read(run / "data").rows
    rows = [{name: row[name] for name in ("video", "question", "options", "answer")} for row in built]
    (tmp_path / "clips").symlink_to(Path(rows[0]["video"]).parent)
    for row in rows:
        row["video"] = f"clips/{Path(row['video']).name}"
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row, default=list) + "\n" for row in rows))
    found = read(tmp_path)
    assert [Path(clip).name for clip in found.clips] == [Path(row["video"]).name for row in built]
    assert found.chance == 0.25
    assert (found.targets, found.states, found.world) == (None, None, None)
    assert {"states", "targets"} <= found.absent.keys()


def test_thoughts_are_those_that_the_model_was_aligned_to(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    TargetTrajectory(NUM_LATENTS, normalize="layernorm").save(tmp_path / "run" / "arms" / "align")
    naive, whitened = read(tmp_path / "run").targets, read(run).targets
    assert not np.allclose(naive, whitened)
    TargetTrajectory.load(run / "data").save(tmp_path / "model")
    np.testing.assert_allclose(read(tmp_path / "run", checkpoint=str(tmp_path / "model")).targets, whitened)


def test_limit_draws_questions_by_seed(run):
    draws = [tuple(read(run, limit=3, seed=seed).clips) for seed in range(6)]
    assert all(len(draw) == 3 for draw in draws)
    assert len(set(draws)) > 1
    assert draws[2] == tuple(read(run, limit=3, seed=2).clips)


def test_depth_chooses_questions(run):
    assert {int(row["depth"]) for row in read(run, depths=[4]).rows} == {4}
    with pytest.raises(DatasetError, match=r"no question of depth \[3\]"):
        read(run, depths=[3])


@pytest.mark.parametrize(
    ("sizes", "what", "reason"),
    [
        ({"hidden_size": 64}, "targets", "size 128, the model's latents 64"),
        ({"num_latents": 2}, "states", "has 4 steps, and the model thinks in 2"),
        ({"num_latents": 2}, "simulator", "has 4 steps, and the model thinks in 2"),
    ],
)
def test_what_does_not_fit_the_model_is_absent_with_the_reason(run, sizes, what, reason):
    found = read(run, **sizes)
    assert reason in found.absent[what]
    assert getattr(found, {"simulator": "world"}.get(what, what)) is None


def test_simulator_that_tells_another_story_is_not_believed(run, monkeypatch):
    assert read(run, world="shuffle").world is not None
    monkeypatch.setattr("storm_hf.worlds.shuffle._WORDINGS", ("Where is the ball?",))
    found = read(run)
    assert found.world is None
    assert "does not tell these questions" in found.absent["simulator"]


def test_simulator_of_other_lengths_is_told(run):
    assert "The world order cannot be described in 4 steps" in read(run, world="order").absent["simulator"]


def test_statistics_that_nobody_has_leave_no_targets(run, tmp_path):
    shutil.copytree(run / "data", tmp_path / "data")
    (tmp_path / "data" / "whitening.safetensors").unlink()
    found = read(tmp_path / "data")
    assert found.targets is None
    assert "whitening.safetensors" in found.absent["targets"]


def test_unknown_split_is_told_with_those_there_are(run):
    with pytest.raises(DatasetError, match="no split 'dreams'; it has train, test"):
        read(run, split="dreams")


def test_folder_without_a_data_set_is_told(tmp_path):
    with pytest.raises(DatasetError, match="Expected a built data set in .*, got a folder without one"):
        read(tmp_path)


def test_data_set_whose_builder_was_stopped_is_not_read_as_rows_of_ones_own(run, tmp_path):
    shutil.copytree(run / "data" / "data", tmp_path / "data")
    (tmp_path / "work").mkdir()
    with pytest.raises(DatasetError, match=r"Expected manifest\.json in .* Run the builder again"):
        read(tmp_path)


def test_rows_keep_what_the_model_needs(run):
    row = read(run).rows[0]
    assert json.dumps(str(row["question"])) == '"Which cup holds the ball at the end?"'
    assert row["thought_features"].ndim == 3
