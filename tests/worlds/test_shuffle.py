"""The cups: pictures, words and states tell the same story."""

import re

import numpy as np
import pytest

from storm_hf.worlds import make_world
from storm_hf.worlds.render import CELL_PX, ENLARGEMENT, ORANGE


WORLD = make_world("shuffle", min_swaps=0)
SWAPS = re.compile(r"swap (\w+) (\w+)")


def follow(ball, swaps):
    for one, other in swaps:
        ball = {one: other, other: one}.get(ball, ball)
    return ball


def place_of_ball(frame):
    small = frame[::ENLARGEMENT, ::ENLARGEMENT]
    columns = np.flatnonzero((small == ORANGE).all(axis=-1).any(axis=0))
    return WORLD.options[columns.mean().astype(int) // CELL_PX]


def test_caption_followed_by_hand_gives_states_and_answer():
    for seed in range(100):
        episode = WORLD.describe(seed)
        ball = re.match(r"zero ball (\w+)", episode.clip_caption)[1]
        swaps = SWAPS.findall(episode.clip_caption)
        assert episode.states == tuple(follow(ball, swaps[: step + 1]) for step in range(6))
        assert episode.answer == episode.states[-1]
        assert episode.depth == sum(pair != ("none", "none") for pair in swaps)


def test_counterfactual_is_what_following_by_hand_gives():
    for seed in range(30):
        episode = WORLD.describe(seed)
        swaps = SWAPS.findall(episode.clip_caption)
        for step in range(1, 7):
            for state in WORLD.options:
                assert WORLD.counterfactual(episode, step, state) == follow(state, swaps[step:])


def test_thought_video_shows_the_state_at_the_end_of_each_step():
    for seed in range(20):
        episode = WORLD.episode(seed)
        assert tuple(place_of_ball(frame) for frame in episode.thought[1::2]) == episode.states


def test_clip_shows_the_ball_at_the_beginning_only():
    for seed in range(20):
        episode = WORLD.episode(seed)
        assert episode.clip_caption.startswith(f"zero ball {place_of_ball(episode.clip[0])} .")
        assert not (episode.clip[2:] == ORANGE).all(axis=-1).any()


def test_swaps_fall_on_all_steps_and_depths_equally():
    swaps = [SWAPS.findall(WORLD.describe(seed).clip_caption) for seed in range(2000)]
    active = np.array([[pair != ("none", "none") for pair in pairs] for pairs in swaps])
    assert active.mean(axis=0) == pytest.approx(np.full(6, 0.5), abs=0.05)
    assert np.bincount(active.sum(axis=1)) / 2000 == pytest.approx(np.full(7, 1 / 7), abs=0.04)


def test_both_chains_end_in_the_answer():
    episode = WORLD.describe(4)
    assert episode.terse_chain.split() == list(episode.states)
    assert episode.chain_of_thought.endswith(f", ball at {episode.answer} .")


def test_rests_come_last_where_that_is_asked_for():
    world = make_world("shuffle", min_swaps=0, rests_last=1)
    for seed in range(50):
        episode, usual = world.describe(seed), WORLD.describe(seed)
        moved = [pair != ("none", "none") for pair in SWAPS.findall(episode.clip_caption)]
        assert moved == sorted(moved, reverse=True)
        assert episode.depth == usual.depth
