"""Event handlers of the page: text in, HTML out, and every error a sentence."""

from dataclasses import replace

import numpy as np
import pytest
from markupsafe import escape
from tests.evaluation.world_checkpoint import OPTIONS

from storm_hf.app.handlers import EVERY_STEP, INTERVENTION_OF, SAME_STEP, PageHandlers
from storm_hf.app.markup import rethought_markup, thinking_markup
from storm_hf.app.session import InterventionAnswer
from storm_hf.interventions.intervention import Intervention


QUESTION = "where is the ball ?"


@pytest.fixture(scope="module")
def asked(handlers, examples):
    return handlers.ask(str(examples.episodes[0].clip_path), QUESTION, ", ".join(OPTIONS))


def test_answer_stands_beside_the_direct_one_with_the_cost_of_both(asked):
    notice, replies, thinking = asked
    assert not notice.strip()
    assert escape(thinking.own.text) in replies
    assert escape(thinking.direct.text) in replies
    assert "5 forward passes" in replies
    assert "1 forward passes" not in replies
    assert "1 forward pass before" in replies
    assert "Step 4" in replies
    assert "Step 5" not in replies


def test_stranger_is_answered_with_a_caveat(handlers, stranger):
    notice, replies, thinking = handlers.ask(str(stranger), QUESTION, "")
    assert "only ever seen tiny drawn videos (of shuffle)" in notice
    assert replies
    assert thinking is not None


@pytest.mark.parametrize("content", [name for name, kind in INTERVENTION_OF.items() if kind != "own"])
def test_every_change_is_answered(handlers, asked, examples, content):
    notice, replies = handlers.change(asked[2], content, EVERY_STEP, SAME_STEP, str(examples.episodes[1].clip_path))
    assert not notice
    assert "With your change" in replies
    assert ("stays the same" in replies) != ("is another" in replies)


@pytest.mark.parametrize(
    ("own", "changed", "donor", "verdict"),
    [
        ("red", "red", None, "does not decide it"),
        ("red", "blue", None, "depends on what you changed"),
        ("red", "blue", "blue", "follows the thought"),
        ("red", "green", "blue", "depends on what you changed"),
        ("red", "red", "blue", "does not decide it"),
        ("red", "red", "red", "proves nothing"),
    ],
)
def test_verdict_claims_no_more_than_the_answers_show(asked, own, changed, donor, verdict):
    thinking = replace(asked[2], own=replace(asked[2].own, text=own))
    again = InterventionAnswer(replace(thinking.own, text=changed), Intervention("zero"), donor)
    shown = rethought_markup(thinking, again)
    assert verdict in shown
    assert ("Its answer to the other clip" in shown) is (donor is not None)


@pytest.mark.parametrize(
    ("changed", "verdict"), [("red", "holds what it needs, or the question alone does"), ("blue", "does not hold all")]
)
def test_verdict_on_the_thought_alone_is_about_what_it_holds(asked, changed, verdict):
    thinking = replace(asked[2], own=replace(asked[2].own, text="red"))
    again = InterventionAnswer(replace(thinking.own, text=changed), Intervention("latents_only"))
    assert verdict in rethought_markup(thinking, again)


@pytest.mark.parametrize(
    ("forms", "caveat"),
    [((), ""), (("options", "open"), ""), (("open",), ""), (("options",), "trained on questions with options alone")],
)
def test_question_in_a_form_that_was_not_trained_is_noticed(handlers, examples, monkeypatch, forms, caveat):
    monkeypatch.setattr(handlers.session.model.config, "storm_prompt", {"question_forms": list(forms)})
    notice = handlers.ask(str(examples.episodes[0].clip_path), QUESTION, "")[0]
    assert caveat in notice
    assert bool(notice.strip()) is bool(caveat)


def test_replaced_steps_are_marked_and_zeros_are_not_drawn(handlers, asked):
    replies = handlers.change(asked[2], "zeros", "step 2", SAME_STEP, None)[1]
    assert [part.partition("</b>")[0] for part in replies.split("<b>")[1:]] == [
        "Step 1",
        "Step 2 <small>yours</small>",
        "Step 3",
        "Step 4",
    ]
    assert replies.count("nothing") == 1


def test_picture_is_drawn_of_every_latent_but_zeros(asked):
    picture = np.zeros((4, 4, 3), np.uint8)
    steps = tuple(
        replace(step, picture=picture, norm=norm) for step, norm in zip(asked[2].own.steps, (1, 0, 1, 1), strict=True)
    )
    replies = thinking_markup(replace(asked[2], own=replace(asked[2].own, steps=steps)))
    assert replies.count("<img") == 3
    assert "two readings of a latent and may differ" in replies


def test_right_answer_is_told_where_a_simulator_drew_the_clip(handlers, examples, stranger):
    episode = examples.episodes[0]
    told = f"The simulator that drew this clip says: {episode.answer}."
    assert told in handlers.ask(str(episode.clip_path), episode.question, "")[1]
    assert "simulator" not in handlers.ask(str(episode.clip_path), QUESTION, "")[1]  # it was asked something else
    assert "simulator" not in handlers.ask(str(stranger), episode.question, "")[1]


def test_latent_is_edited_by_naming_two_steps(handlers, asked):
    notice, replies = handlers.change(asked[2], "another of its steps", "step 2", "step 4", None)
    assert not notice
    assert "With your change" in replies


def test_nothing_asked_is_one_sentence(handlers):
    assert "Drop one" in handlers.ask(None, QUESTION, "")[0]
    notice, replies = handlers.change(None, "zeros", EVERY_STEP, SAME_STEP, None)
    assert "Ask something first" in notice
    assert not replies


@pytest.mark.parametrize(
    ("question", "options", "message"), [("  ", "", "no question yet"), (QUESTION, "left", "no choice")]
)
def test_question_that_is_none_is_one_sentence(handlers, stranger, question, options, message):
    notice, replies, thinking = handlers.ask(str(stranger), question, options)
    assert message in notice
    assert (replies, thinking) == ("", None)


def test_broken_clip_is_told_by_its_name_and_not_by_its_folder(handlers, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all")
    notice, _, thinking = handlers.ask(str(broken), QUESTION, "")
    assert "broken.mp4 is not a video" in notice
    assert str(tmp_path) not in notice
    assert thinking is None


def test_long_clip_is_one_sentence(handlers, stranger):
    short = PageHandlers(replace(handlers.session, max_seconds=2.0))
    assert "Cut it shorter" in short.ask(str(stranger), QUESTION, "")[0]


def test_words_of_a_model_are_escaped(asked):
    thinking = asked[2]
    tagged = replace(thinking, own=replace(thinking.own, text="<script>alert(1)</script>"))
    assert "<script>" not in thinking_markup(tagged)
    assert "&lt;script&gt;" in thinking_markup(tagged)
