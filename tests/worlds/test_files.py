"""Episodes as mp4 files: faithful in colour, resumable, and never mixed with another world's."""

import dataclasses
import json

import numpy as np
import pytest

from storm_hf.atomic import read_json
from storm_hf.errors import ConfigurationError, DatasetError, StaleWorkError
from storm_hf.video import read_video
from storm_hf.worlds import make_world, read_episodes, world_of_clip, write_episodes
from storm_hf.worlds.render import BACKGROUND, ENLARGEMENT


SHUFFLE = make_world("shuffle")


def small(frames):
    """Scale back to the pixels that were drawn, as a video processor does."""
    count, height, width, _ = frames.shape
    squares = (count, height // ENLARGEMENT, ENLARGEMENT, width // ENLARGEMENT, ENLARGEMENT, 3)
    return frames.reshape(squares).astype(float).mean(axis=(2, 4))


def test_pictures_survive_the_video_file(standard_world, tmp_path):
    for files in write_episodes(standard_world, range(4), tmp_path):
        episode = standard_world.episode(files.seed)
        for path, drawn in ((files.clip_path, episode.clip), (files.thought_path, episode.thought)):
            clip = read_video(path)
            assert clip.frames.shape == drawn.shape
            assert clip.fps == pytest.approx(episode.fps)
            assert np.abs(small(clip.frames) - small(drawn)).mean() < 3


def test_every_colour_is_still_the_nearest_of_the_drawn_ones(standard_world, tmp_path):
    for files in write_episodes(standard_world, range(4), tmp_path):
        drawn = small(standard_world.episode(files.seed).thought)
        colours = np.unique(drawn.reshape(-1, 3), axis=0)
        read = small(read_video(files.thought_path).frames)
        nearest = colours[np.linalg.norm(read[..., None, :] - colours, axis=-1).argmin(axis=-1)]
        assert (nearest == drawn).all(axis=-1).mean() > 0.995


def test_files_carry_all_the_words(tmp_path):
    (files,) = write_episodes(SHUFFLE, [17], tmp_path, depths=5)
    words = vars(SHUFFLE.describe(17, depth=5))
    assert files.id == "shuffle-000000017-d5"
    assert files.clip_path == tmp_path / "clips" / f"{files.id}.mp4"
    assert all(getattr(files, name) == value for name, value in words.items())


def test_manifest_is_read_back_as_it_was_written(tmp_path):
    written = write_episodes(SHUFFLE, range(3), tmp_path)
    assert read_episodes(tmp_path) == written
    rows = [json.loads(row) for row in (tmp_path / "episodes.jsonl").read_text().splitlines()]
    assert [row["clip_path"] for row in rows] == [f"clips/shuffle-00000000{seed}.mp4" for seed in range(3)]


def test_second_call_adds_to_the_manifest(tmp_path):
    first = write_episodes(SHUFFLE, [1, 2], tmp_path)
    second = write_episodes(SHUFFLE, [1, 2], tmp_path, depths=[0, 6])
    assert {files.id for files in read_episodes(tmp_path)} == {files.id for files in first + second}


def test_finished_episodes_are_kept_and_missing_ones_made(tmp_path):
    written = write_episodes(SHUFFLE, range(3), tmp_path)
    times = [files.clip_path.stat().st_mtime_ns for files in written]
    before = written[1].thought_path.read_bytes()
    written[1].thought_path.unlink()
    (tmp_path / "episodes.jsonl").unlink()
    assert write_episodes(SHUFFLE, range(3), tmp_path) == written
    after = [files.clip_path.stat().st_mtime_ns for files in written]
    assert [times[0], times[2]] == [after[0], after[2]]
    assert written[1].thought_path.read_bytes() == before


def test_stopped_run_leaves_no_manifest_and_goes_on(tmp_path):
    def stop(files):
        if files.seed == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_episodes(SHUFFLE, range(3), tmp_path, on_finished=stop)
    with pytest.raises(DatasetError, match=r"episodes.jsonl .* it continues"):
        read_episodes(tmp_path)
    assert [files.seed for files in write_episodes(SHUFFLE, range(3), tmp_path)] == [0, 1, 2]


def test_workers_write_the_same_bytes(tmp_path):
    alone = write_episodes(SHUFFLE, range(3), tmp_path / "alone")
    together = write_episodes(SHUFFLE, range(3), tmp_path / "together", workers=2)
    for one, other in zip(alone, together, strict=True):
        assert one.clip_path.read_bytes() == other.clip_path.read_bytes()
        assert one.thought_path.read_bytes() == other.thought_path.read_bytes()


def test_folder_from_before_a_knob_was_known_goes_on_with_its_default_alone(tmp_path):
    write_episodes(SHUFFLE, [0], tmp_path)
    content = read_json(tmp_path / "world.json")
    del content["rests_last"]
    (tmp_path / "world.json").write_text(json.dumps(content))
    assert len(write_episodes(SHUFFLE, [0, 1], tmp_path)) == 2
    with pytest.raises(StaleWorkError, match="'rests_last': 1"):
        write_episodes(dataclasses.replace(SHUFFLE, rests_last=1), [0], tmp_path)


def test_folder_of_another_world_is_refused(tmp_path):
    write_episodes(SHUFFLE, [0], tmp_path)
    with pytest.raises(StaleWorkError, match="'num_cups': 3"):
        write_episodes(make_world("shuffle", num_cups=3), [0], tmp_path)


def test_seeds_and_depths_of_different_number_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="one depth per seed, 2, but got 1"):
        write_episodes(SHUFFLE, [0, 1], tmp_path, depths=[3])


def test_clip_knows_the_world_that_drew_it(tmp_path):
    world = make_world("shuffle", num_steps=2, min_swaps=0, max_swaps=1)
    files = write_episodes(world, [3], tmp_path)[0]
    assert world_of_clip(files.clip_path) == world_of_clip(files.thought_path) == world
    assert world_of_clip(tmp_path / "elsewhere" / "clips" / "a.mp4") is None


def test_canvas_pads_frames_and_changes_nothing_else(tmp_path):
    (plain,) = write_episodes(SHUFFLE, [3], tmp_path / "plain")
    (padded,) = write_episodes(SHUFFLE, [3], tmp_path / "padded", canvas=(48, 64))
    frames = small(read_video(padded.thought_path).frames)
    assert frames.shape[1:3] == (48, 64)
    assert np.abs(frames[:, :16] - small(read_video(plain.thought_path).frames)).mean() < 3
    assert np.abs(frames[:, 17:] - np.array(BACKGROUND)).mean() < 3
    assert padded.question == plain.question
    assert world_of_clip(padded.clip_path) is None  # it reads no padded frames


def test_canvas_that_is_too_small_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="at least 16 x 64 pixels but got 16 x 48"):
        write_episodes(SHUFFLE, [0], tmp_path, canvas=(16, 48))
    assert len(write_episodes(SHUFFLE, [0], tmp_path, canvas=(48, 64))) == 1  # nothing was begun


def test_folder_of_another_canvas_is_refused(tmp_path):
    write_episodes(SHUFFLE, [0], tmp_path)
    with pytest.raises(StaleWorkError, match="canvas"):
        write_episodes(SHUFFLE, [0], tmp_path, canvas=(48, 64))
