"""The shapes: what appears is what is recapped and asked for."""

import re

import numpy as np

from storm_hf.inputs.wording import NUMBER_WORDS
from storm_hf.worlds import make_world
from storm_hf.worlds.render import BACKGROUND


WORLD = make_world("order")


def shown(episode):
    return re.findall(r"(?:red|blue|green|yellow|purple) (\w+)", episode.clip_caption)


def test_recap_and_answer_follow_the_order_of_appearance():
    for seed in range(100):
        episode = WORLD.describe(seed)
        shapes = shown(episode)
        assert len(set(shapes)) == 5
        assert list(episode.states) == [*shapes, shapes[-1]]
        assert episode.answer == shapes[episode.depth - 1]
        assert episode.question == f"Which shape was number {NUMBER_WORDS[episode.depth]}?"


def test_counterfactual_changes_the_answer_only_at_the_step_asked_for():
    for seed in range(30):
        episode = WORLD.describe(seed)
        for step in range(1, 7):
            for state in WORLD.state_names:
                expected = state if step == episode.depth else episode.answer
                assert WORLD.counterfactual(seed, step, state) == expected


def test_pauses_are_empty_and_every_shape_is_drawn():
    episode = WORLD.episode(2)
    drawn = [(pair != BACKGROUND).any() for pair in episode.clip[::2]]
    told = ["none none" not in sentence for sentence in episode.clip_caption.split(" .")[:-1]]
    assert drawn == told
    assert sum(drawn) == 5


def test_recap_is_the_same_whatever_is_asked():
    one, other = WORLD.episode(6, depth=1), WORLD.episode(6, depth=4)
    np.testing.assert_array_equal(one.thought, other.thought)
    assert one.answer != other.answer
