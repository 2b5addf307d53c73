"""Rows that teach a pretrained language model of the demo to reply."""

import pytest

from storm_hf.demo import data, demo_recipe
from storm_hf.inputs.conversation import read_answer, read_messages
from storm_hf.worlds import WORLD_NAMES, make_world, split_seeds


NUM_ROWS = 40


@pytest.fixture(scope="module", params=WORLD_NAMES)
def recipe(request):
    return demo_recipe(request.param, backbone="smollm2")


@pytest.fixture(scope="module")
def told(recipe):
    return data.told_questions(recipe, NUM_ROWS)


@pytest.fixture(scope="module")
def episodes(recipe):
    world = make_world(recipe.world, **recipe.knobs)
    return [world.describe(seed) for seed in split_seeds("train", NUM_ROWS, recipe.seed)]


def text_of(row):
    (message,) = read_messages(row, "words")
    (part,) = message["content"]
    return part["text"]


def test_states_are_told_in_words_and_there_is_no_clip(told, episodes):
    assert told.column_names == ["prompt", "completion"]
    for row, episode in zip(told, episodes, strict=True):
        assert text_of(row).startswith(f"{episode.thought_caption} ")


def test_letter_of_a_reply_stands_at_the_correct_option(told, episodes):
    replies = [read_answer(row, "words") for row in told]
    letters = [(reply, text_of(row), one.answer) for reply, row, one in zip(replies, told, episodes, strict=True)]
    alone = [each for each in letters if len(each[0]) == 1]
    assert len(alone) > NUM_ROWS / 2
    for letter, text, answer in alone:
        forms = (f"{letter}. {answer}", f"{letter}) {answer}")
        assert any(f"{form}\n" in text or f"{form} " in text for form in forms)


def test_options_stand_under_letters_in_many_orders(told, episodes, recipe):
    first = {min(one.options, key=text_of(row).rfind) for row, one in zip(told, episodes, strict=True)}
    assert len(first) > 1
    assert all("A. " in text_of(row) or "A) " in text_of(row) for row in told)


def test_no_two_rows_are_alike_and_the_same_recipe_makes_the_same(told, recipe):
    assert len({text_of(row) for row in told}) > 0.9 * NUM_ROWS
    assert data.told_questions(recipe, NUM_ROWS).to_list() == told.to_list()


def test_wordings_that_are_held_out_are_not_told(told, recipe, episodes):
    world = make_world(recipe.world, **recipe.knobs)
    said = {
        name: {world.say(wording, one) for wording in wordings for one in episodes}
        for name, wordings in (("trained", world.trained_wordings), ("held out", world.held_out_wordings))
    }
    texts = [text_of(row) for row in told]
    found = {
        name: sum(any(question in text for question in questions) for text in texts)
        for name, questions in said.items()
    }
    assert found == {"trained": NUM_ROWS, "held out": 0}
