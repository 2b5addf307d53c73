from dataclasses import asdict

import numpy as np
import pytest

from storm_hf.diagnostics.intervention_effects import AnswerTable, DonorQuestionEffect, is_correct
from storm_hf.diagnostics.replay import Reply
from storm_hf.evaluation import Answer
from storm_hf.evaluation.bootstrap import Interval
from storm_hf.interventions.intervention import Intervention
from storm_hf.worlds import ask, make_world


OPTIONS = ["red", "blue", "green", "yellow"]


def reply(text, divergence=0.0):
    return Reply(Answer(text, text if text in OPTIONS else None, None, []), divergence)


def rows_of(*answers, options=OPTIONS):
    return [{"question": "where?", "options": options, "answer": answer} for answer in answers]


def table(rows, own):
    return AnswerTable(rows, [reply(text) for text in own], [f"{index}.mp4" for index in range(len(rows))])


def test_effect_counts_what_is_right_lost_and_changed():
    made = table(rows_of("red", "blue", "green", "red"), ["red", "blue", "red", "red"])
    effect = made.effect(Intervention("donor"), [reply(text, 2.0) for text in ("red", "red", "green", "dog")])
    assert effect.accuracy.mean == 0.5
    assert effect.lost.mean == pytest.approx(0.75 - 0.5)
    assert effect.changed.mean == 0.75
    assert effect.divergence == Interval(2.0, 2.0, 2.0)
    assert effect.follows_donor is effect.steered is None
    assert effect.unreadable == 0.25


def test_donor_that_was_asked_something_else_cannot_be_followed():
    rows = [{**row, "question": question} for row, question in zip(rows_of("red", "blue"), "ab", strict=True)]
    made = table(rows, ["red", "blue"])
    effect = made.effect(Intervention("donor", donors=np.array([1, 0])), [reply("blue"), reply("red")])
    assert effect.follows_donor is None


def test_donor_is_followed_where_it_has_another_answer():
    made = table(rows_of("red", "blue", "red"), ["red", "blue", "red"])
    effect = made.effect(
        Intervention("donor", donors=np.array([1, 0, 0])), [reply("blue"), reply("blue"), reply("red")]
    )
    assert effect.num_donors == 2
    assert effect.follows_donor.mean == 0.5
    assert effect.steered.mean == 0.5


def test_model_that_happens_to_say_the_donors_answer_is_not_steered():
    rows = rows_of(*["red", "blue"] * 20)
    made = table(rows, ["blue", "red"] * 20)
    donors = np.roll(np.arange(40), 1)
    effect = made.effect(Intervention("donor", donors=donors), [reply("blue"), reply("red")] * 20)
    assert effect.follows_donor.mean == 1.0
    assert effect.steered.mean == 0.0
    assert effect.steered.high == pytest.approx(3 / 40)


def test_own_answers_are_themselves():
    made = table(rows_of("red", "blue"), ["red", "red"])
    effect = made.effect(Intervention("own"), made.own)
    assert effect.lost == Interval(0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("text", "answer", "is_right"),
    [("A Red  cup.", "a red cup", True), ("red", "red cup", False), ("", "red", False), ("RED!", "red", True)],
)
def test_open_answers_are_compared_as_words(text, answer, is_right):
    for options in (None, []):
        assert is_correct(reply(text).answer, {"answer": answer, "options": options}) is is_right


def test_answer_that_names_no_option_is_wrong():
    assert not is_correct(reply("dog").answer, rows_of("red")[0])


@pytest.mark.parametrize("wordings", ["usual", "trained"])
def test_counterfactual_counts_only_questions_whose_answer_it_should_change(wordings):
    world = make_world("shuffle", num_steps=3, min_swaps=1, max_swaps=3)
    told = [world.describe(seed) for seed in range(30)]
    rows = [{**asdict(ask(world, text, text.seed, wordings)), "seed": text.seed, "depth": text.depth} for text in told]
    states = np.array([text.states for text in told])
    donors = np.roll(np.arange(30), 1)
    made = table(rows, [text.answer for text in told])
    expected = [world.counterfactual(text, 1, str(states[donor, 0])) for text, donor in zip(told, donors, strict=True)]
    changed = sum(new != text.answer for new, text in zip(expected, told, strict=True))
    follows = made.counterfactual(world, states, 0, donors, [reply(new) for new in expected])
    assert (follows.step, follows.num_questions, follows.follows.mean, follows.keeps.mean) == (1, changed, 1.0, 0.0)
    assert 0 < changed < 30
    keeps = made.counterfactual(world, states, 0, donors, made.own)
    assert (keeps.follows.mean, keeps.keeps.mean) == (0.0, 1.0)
    assert made.counterfactual(world, states, 0, np.arange(30), made.own) is None


def test_question_of_the_donor_is_compared_with_the_clips_own_latents():
    rows = rows_of("red", "blue", "green", "red")
    own, with_donors = (
        [reply(text) for text in said] for said in (("red", "red", "red", "blue"), ("red", "blue", "green", "red"))
    )
    effect = DonorQuestionEffect.of(rows, own, with_donors, ["a", "b", "c", "d"])
    assert effect.follows.mean == 1.0
    assert effect.steered.mean == 0.75
