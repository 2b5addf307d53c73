import argparse
import json
import sys

import natural
import numpy as np
import pytest
import torch
from films import FILMS, Film, cut_films
from frozen_tower import FEATURE_SCALE, PATCH_PX, FrozenTower, image_encoder
from natural import SEGMENTS, make_recipe, make_variants, nearest
from tests.video.clips import encode, natural_frames, numbered_frames, numbers
from transformers import Qwen2VLVideoProcessor

from storm_hf.thought_video import SegmentQuestion
from storm_hf.video import read_video


HEIGHT, WIDTH = SEGMENTS.frame_size


def test_first_part_of_a_film_is_trained_on_and_the_rest_is_asked_later(tmp_path):
    encode(tmp_path / "a.mp4", numbered_frames(60), fps=10)
    missing = cut_films(
        tmp_path, tmp_path / "cut", [Film("p", "a.mp4", is_trained=True, end_seconds=5.0), Film("q", "b.mp4", False)]
    )
    assert [film.package for film in missing] == ["q"]
    shown = {path.parent.name: numbers(read_video(path).frames) for path in sorted((tmp_path / "cut").rglob("*.mp4"))}
    assert shown == {"train": list(range(40)), "validation": list(range(40, 50))}


def test_pieces_of_a_long_film_follow_each_other_and_other_films_are_for_the_test_alone():
    *pieces, later = Film("p", "a.mp4", is_trained=True).parts(200.0)
    assert [split for split, _, _ in pieces] == ["train"] * 3
    assert [start for _, start, _ in (*pieces, later)] == pytest.approx([0, *(end for _, _, end in pieces)])
    assert later == ("validation", 160.0, 200.0)
    assert list(Film("p", "a.mp4", is_trained=False).parts(9.0)) == [("test", 0.0, 9.0)]
    assert len({film.file for film in FILMS}) == len(FILMS)


def patches_of(frames):
    """Cut frames as the processor of the benchmark does; one is darker than the other, so that none looks like another."""
    processor = Qwen2VLVideoProcessor(
        patch_size=PATCH_PX,
        size={"shortest_edge": 256, "longest_edge": HEIGHT * WIDTH},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        do_sample_frames=False,
        cap_pixels_per_frame=True,
    )
    return processor(videos=[frames], return_tensors="pt", input_data_format="channels_last")


def test_tower_sees_the_frames_that_the_processor_cut_into_patches():
    frames = natural_frames(6, HEIGHT, WIDTH)
    looked_at = []

    def see(pixels):
        looked_at.append(pixels)
        return image_encoder("pixels", None)(pixels)

    expected = torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1
    tower = FrozenTower(see, expected, size=8)
    cut = patches_of(frames)
    tokens = tower(cut["pixel_values_videos"], cut["video_grid_thw"]).pooler_output
    assert torch.allclose(looked_at[-1], expected, atol=1e-5)
    assert tokens.shape == (3 * (HEIGHT // 32) * (WIDTH // 32), 8)


def test_components_of_the_fitted_frames_are_white():
    frames = torch.from_numpy(natural_frames(40, HEIGHT, WIDTH)).permute(0, 3, 1, 2) / 127.5 - 1
    tower = FrozenTower(image_encoder("pixels", None), frames, size=8)
    cut = patches_of(natural_frames(40, HEIGHT, WIDTH))
    tokens = tower(cut["pixel_values_videos"], cut["video_grid_thw"]).pooler_output
    assert tokens.mean(dim=0).abs().max() < 0.02 * FEATURE_SCALE
    assert torch.allclose(torch.cov(tokens.T), FEATURE_SCALE**2 * torch.eye(8), atol=0.02 * FEATURE_SCALE**2)


@pytest.mark.parametrize("task", ["order", "next"])
def test_smooth_film_is_joined_correctly(task):
    for seed in range(10):
        drawn = SegmentQuestion.draw(task, seed, SEGMENTS)
        starts = drawn.starts(20.0, SEGMENTS.segment_seconds)[list(drawn.shown)]
        moments = starts[:, None] + np.arange(natural.PATCHES_PER_PART) * SEGMENTS.segment_seconds / 2
        features = np.stack([moments.ravel(), 20 - moments.ravel()], axis=1)  # a film that changes evenly
        assert nearest({"id": f"test-{task}-000000-a", "video_features": features}) == drawn.answer


def test_direct_answers_and_storm_have_one_base_and_as_many_updates():
    arguments = argparse.Namespace(seed=0, num_train=48, num_tests=8, updates=None)
    base, direct, align, storm = make_variants(make_recipe(arguments))
    assert direct.start == align.start == base
    assert storm.start == align
    assert direct.num_updates == storm.num_updates > align.num_updates


@pytest.mark.slow
def test_rehearsal_counts_every_question_and_is_not_repeated(tmp_path, monkeypatch, capsys):
    packages = tmp_path / "packages"
    packages.mkdir()
    for name, count in (("a.mp4", 220), ("b.mp4", 60)):
        encode(packages / name, natural_frames(count, HEIGHT, WIDTH, seed=count), fps=5)
    films = (Film("p", "a.mp4", True), Film("p", "b.mp4", False), Film("absent", "c.mp4", False))
    monkeypatch.setattr(natural.cut_films, "__defaults__", (films,))
    options = ["--encoder", "pixels", "--updates", "2", "--num-train", "24", "--num-tests", "4"]
    folders = ["--packages", str(packages), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["natural.py", *options, *folders])
    natural.main()
    first = capsys.readouterr()
    assert "left out: c.mp4" in first.err
    found = json.loads((tmp_path / "out" / "pixels-0-2-updates" / "natural.json").read_text())
    assert list(found) == ["nearest", "base", "direct", "STORM after Stage I", "STORM"]
    assert list(found["STORM"]["order, other films"]) == ["own", *natural.USE]
    counts = [counted for sets in found.values() for fed in sets.values() for counted in fed.values()]
    assert all(0 <= correct <= asked == 4 for correct, asked in counts)
    trained = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.safetensors")}
    natural.main()
    assert capsys.readouterr().out == first.out
    assert {path: path.stat().st_mtime_ns for path in trained} == trained
