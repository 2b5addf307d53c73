"""Wordings of the questions, and the forms in which they are asked and answered."""

import re
from collections import Counter
from functools import cache

import pytest

from storm_hf.errors import ConfigurationError
from storm_hf.evaluation.batch import read_outcome
from storm_hf.inputs.wording import format_question
from storm_hf.worlds import WORLD_NAMES, ask, make_world


NUM_EPISODES = 240
_STOP_WORDS = """
    a an the of to in on at is are be has have had does do did it its that this there and or if once when after now
    which what where who how i me my say tell name please
"""
USUAL = {
    "shuffle": "Which cup holds the ball at the end?",
    "bounce": "Where is the ball after five steps?",
    "order": "Which shape was number five?",
    "lattice": "Which number do the last three tiles of row one show at the end?",
}


@cache
def episodes_of(world):
    return [world.describe(seed) for seed in range(NUM_EPISODES)]


@cache
def asked_of(world, wordings):
    return [ask(world, episode, episode.seed, wordings) for episode in episodes_of(world)]


def content(wording):
    return frozenset(re.findall(r"\w+", wording.lower())) - set(_STOP_WORDS.split())


def test_world_has_twelve_wordings_or_more_and_holds_a_third_of_them_out(standard_world):
    trained, held_out = standard_world.trained_wordings, standard_world.held_out_wordings
    assert trained + held_out == standard_world.question_wordings
    assert len(set(trained + held_out)) == len(trained + held_out) >= 12
    assert len(held_out) == pytest.approx(len(trained + held_out) / 3, abs=1)


def test_wordings_differ_by_more_than_small_words(standard_world):
    assert len(set(map(content, standard_world.question_wordings))) == len(standard_world.question_wordings)


def test_held_out_wording_shares_at_most_half_of_its_words_with_a_trained_one(standard_world):
    for held_out in map(content, standard_world.held_out_wordings):
        for trained in map(content, standard_world.trained_wordings):
            assert len(held_out & trained) <= (len(held_out) + 1) / 2


@pytest.mark.parametrize("name", WORLD_NAMES)
def test_usual_question_is_the_one_of_the_tiny_demo_with_its_options_apart(name):
    world = make_world(name)
    episode = next(episode for episode in episodes_of(world) if episode.question == USUAL[name])
    asked = ask(world, episode, 3, "usual")
    assert (asked.question, asked.options, asked.answer) == (episode.question, episode.options, episode.answer)
    assert (asked.choices, asked.outcome) == (episode.options, episode.answer)


def test_wording_is_filled_with_what_the_episode_asks_for(world):
    for episode in map(world.describe, range(8)):
        said = [world.say(wording, episode) for wording in world.question_wordings]
        assert said[0] == episode.question
        assert not any("{" in text for text in said)
    if world.name == "order":
        assert world.say("{number} {ordinal}", world.describe(0, depth=2)) == "two second"


@pytest.mark.parametrize("wordings", ["trained", "held_out"])
def test_questions_are_asked_in_every_wording_of_the_kind_and_in_no_other(standard_world, wordings):
    used = set()
    for episode, asked in zip(episodes_of(standard_world)[:100], asked_of(standard_world, wordings), strict=False):
        said = {standard_world.say(each, episode): each for each in standard_world.question_wordings}
        used.add(said[max(text for text in said if asked.question.startswith(text))])
    expected = {"trained": standard_world.trained_wordings, "held_out": standard_world.held_out_wordings}
    assert used == set(expected[wordings])


def form_of(asked):
    is_sentence = asked.answer.endswith(".")
    is_letter = re.fullmatch(r"\(?[A-I]\b.*", asked.answer) is not None
    reply = "sentence" if is_sentence else "word"
    if is_letter and not is_sentence:
        reply = "letter" if len(asked.answer) == 1 else "letter and word"
    return asked.choice_style, reply


def test_every_form_of_options_and_of_the_reply_occurs(standard_world):
    forms = Counter(map(form_of, asked_of(standard_world, "trained")))
    assert set(forms) == {
        ("none", "word"),
        ("none", "sentence"),
        ("words", "word"),
        ("words", "sentence"),
        ("letters", "letter"),
        ("letters", "letter and word"),
        ("letters", "sentence"),
    }
    assert min(forms.values()) >= 5


def test_question_with_options_names_all_of_them_and_one_without_asks_for_no_letter(standard_world):
    for asked in asked_of(standard_world, "held_out"):
        assert asked.options == ()
        if asked.choice_style != "none":
            assert all(re.search(rf"\b{choice}\b", asked.question) for choice in asked.choices)
        if asked.choice_style != "letters":
            assert "letter" not in asked.question


def test_options_come_in_any_order_so_that_a_letter_has_to_be_looked_up(standard_world):
    asked = [one for one in asked_of(standard_world, "trained") if one.choice_style == "letters"]
    assert len({one.choices for one in asked}) > 10
    assert all(set(one.choices) == set(standard_world.options) for one in asked)


def test_sentence_is_given_where_the_question_asks_for_one(standard_world):
    for asked in asked_of(standard_world, "trained"):
        assert asked.answer.endswith(".") == ("sentence" in asked.question)


def test_some_questions_are_asked_as_every_command_asks_them(standard_world):
    """`storm ask --options` writes the options in this form."""
    asked = [one for one in asked_of(standard_world, "trained") if one.choice_style != "none"]
    ends = [format_question("", one.choices, one.choice_style).strip() for one in asked]
    assert 20 < sum(one.question.endswith(end) for one, end in zip(asked, ends, strict=True)) < 80


@pytest.mark.parametrize("wordings", ["usual", "trained", "held_out"])
def test_every_reply_reads_back_to_the_outcome(standard_world, wordings):
    for asked in asked_of(standard_world, wordings):
        assert read_outcome(asked.answer, asked.choices, asked.choice_style) == asked.outcome


def test_every_sentence_reads_back_to_its_option(standard_world):
    episode = standard_world.describe(0)
    for option in standard_world.options:
        for sentence in standard_world.answer_sentences:
            reply = standard_world.say(sentence, episode, answer=option)
            assert read_outcome(reply, standard_world.options, "none") == option
            assert read_outcome(reply, standard_world.options, "letters") == option


def test_seed_alone_decides_the_wording_and_the_forms(standard_world):
    episode = standard_world.describe(3)
    many = [ask(standard_world, episode, seed, "trained") for seed in range(50)]
    assert many == [ask(standard_world, episode, seed, "trained") for seed in range(50)]
    assert len({asked.question for asked in many}) > 40
    assert {asked.outcome for asked in many} == {episode.answer}


def test_seed_asks_the_same_in_every_process_and_version():
    world = make_world("order")
    asked = [ask(world, world.describe(seed), seed, "trained") for seed in (0, 1)]
    assert [(one.question, one.answer) for one in asked] == [
        ("Which shape was number five? Answer in a sentence.", "The fifth shape is a triangle."),
        (
            "What is the second shape that appears? (A) bar (B) circle (C) cross (D) triangle (E) square (F) ring Give only the "
            "letter.",
            "B",
        ),
    ]


def test_unknown_wordings_are_refused(standard_world):
    with pytest.raises(ConfigurationError, match="usual, trained or held_out but got 'all'"):
        ask(standard_world, standard_world.describe(0), 0, "all")
