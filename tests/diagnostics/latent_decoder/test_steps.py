"""Each latent slot stands for the frame that it ends with, drawn small."""

import numpy as np
import pytest
from tests.diagnostics.thinker import NUM_LATENTS, WORLD

from storm_hf.diagnostics.latent_decoder import find_trajectory, read_steps
from storm_hf.diagnostics.latent_decoder.steps import fingerprint, picture_size
from storm_hf.errors import DatasetError


def test_frames_are_those_that_show_the_state(thought_rows, trajectory):
    steps = read_steps(thought_rows, trajectory, max_pixels=16 * 64)
    assert steps.frames.shape == (30, NUM_LATENTS, 16, 64, 3)
    assert [[WORLD.read_frame(frame) for frame in row] for row in steps.frames] == steps.states
    assert np.allclose(steps.targets, trajectory([row["thought_features"] for row in thought_rows]).numpy(), atol=1e-5)


@pytest.mark.parametrize("form", [list, np.array, tuple], ids=["list", "array", "tuple"])
def test_states_are_read_in_any_format_of_a_row(thought_rows, trajectory, form):
    rows = [{**row, "states": form(row["states"])} for row in thought_rows[:2]]
    assert read_steps(rows, trajectory).states == [[str(state) for state in row["states"]] for row in rows]
    for absent in (None, form([])):
        assert read_steps([{**rows[0], "states": absent}], trajectory).states == [[""] * NUM_LATENTS]


def test_gallery_holds_one_step_of_each_row(thought_rows, trajectory):
    steps = read_steps(thought_rows, trajectory)
    gallery = steps.gallery(seed=1)
    assert len(gallery.states) == 30
    found = gallery.neighbours(steps.targets)
    assert (found.similarity[..., 0].max(axis=1) > 0.999).all()  # each row finds the step that is its own


@pytest.mark.parametrize(
    ("frame", "picture"), [((64, 256), (32, 128)), ((16, 64), (16, 64)), ((720, 1280), (48, 80)), ((4, 4), (8, 8))]
)
def test_pictures_keep_about_the_aspect(frame, picture):
    assert picture_size(*frame, max_pixels=4096) == picture


def test_row_without_thought_video_is_refused(thought_rows, trajectory):
    bare = {name: value for name, value in thought_rows[0].items() if name != "thought_video"}
    with pytest.raises(DatasetError, match="column thought_video"):
        read_steps([bare], trajectory)
    with pytest.raises(DatasetError, match="at least one row"):
        read_steps([], trajectory)


def test_trajectory_is_taken_from_the_first_folder_that_has_one(trajectory, tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(DatasetError, match="Name the folder of the data set"):
        find_trajectory(tmp_path / "model", tmp_path)
    trajectory.save(tmp_path)
    assert fingerprint(find_trajectory(tmp_path / "model", tmp_path)) == fingerprint(trajectory)
