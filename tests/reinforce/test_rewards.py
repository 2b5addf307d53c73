"""Rewards: closed forms on answers written by hand."""

import pytest

from storm_hf.errors import ConfigurationError
from storm_hf.reinforce.rewards import (
    REWARDS,
    answer_format,
    correct_answer,
    donor_answer,
    find_rewards,
    latent_price,
    latent_use,
)


OPTIONS = ["left", "right", "up"]


def columns(count, **given):
    """Columns as the trainer hands them out, with the trainer's state among them."""
    usual = {
        "answer": ["left"] * count,
        "options": [OPTIONS] * count,
        "question_style": ["words"] * count,
        "has_donor": [False] * count,
        "donor": [None] * count,
        "is_ended": [True] * count,
    }
    return {**usual, "trainer_state": object(), **given}


def test_correct_answer_is_read_as_evaluations_read_it():
    completions = ["left", "Left.", "The ball is left", "left or right", "up", ""]
    assert correct_answer(completions, **columns(6)) == [1, 1, 1, 0, 0, 0]


def test_letters_are_read_where_options_have_letters():
    given = columns(2, question_style=["letters"] * 2)
    assert correct_answer(["A", "B"], **given) == [1, 0]


def test_open_answer_is_compared_word_for_word():
    given = columns(3, answer=["The red ball", "3", "3"], options=[None] * 3)
    assert correct_answer(["red ball.", "3", "13"], **given) == [1, 1, 0]


def test_answers_of_donors_are_not_judged_as_own_ones():
    assert correct_answer(["left", "left"], **columns(2, has_donor=[False, True])) == [1, None]


def test_format_asks_for_one_option_and_an_end():
    given = columns(4, is_ended=[True, True, True, False])
    assert answer_format(["up", "left or right", "", "up"], **given) == [1, 0, 0, 0]
    assert answer_format(["anything", ""], **columns(2, options=[None] * 2)) == [1, 0]


def test_use_is_correct_with_the_own_latents_and_not_with_a_donors():
    given = columns(4, has_donor=[False, False, True, True])
    assert latent_use(["left", "up", "left", "up"], **given) == [1, 0, 0, 1]


def test_answer_that_ignores_the_latents_gets_half_of_the_use():
    given = columns(8, has_donor=[False] * 4 + [True] * 4)
    rewards = latent_use(["left"] * 8, **given)
    assert sum(rewards) / 8 == 0.5


def test_donors_answer_is_that_of_its_own_row():
    donors = [None, {"answer": "up"}, {"answer": "up"}]
    given = columns(3, has_donor=[False, True, True], donor=donors)
    assert donor_answer(["left", "up", "left"], **given) == [None, 1, 0]


def test_price_is_paid_by_correct_answers_relative_to_their_group():
    given = columns(6, has_donor=[False] * 5 + [True])
    prices = latent_price(
        ["left", "left", "left", "up", "left", "left"],
        num_latents=[2, 4, 6, 1, 3, 1],
        group=[0, 0, 0, 0, 1, 0],
        **given,
    )
    assert prices == [0.5, 0, -0.5, 0, 0, 0]


def test_price_is_zero_where_all_think_equally_long():
    assert latent_price(["left", "left", "up"], num_latents=[6] * 3, group=[0, 0, 0], **columns(3)) == [0, 0, 0]


def test_rewards_are_found_by_name():
    assert find_rewards(["latent_use", "correct_answer"]) == [latent_use, correct_answer]
    assert all(reward.__name__ == name for name, reward in REWARDS.items())
    with pytest.raises(ConfigurationError, match="Expected `rewards` among correct_answer, .*, got 'speed'"):
        find_rewards(["speed"])
