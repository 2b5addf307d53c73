"""Consistency of the shown latents with those that were fed: numbers, pictures, names and costs."""

from dataclasses import replace

import numpy as np
import pytest
from tests.evaluation.world_checkpoint import HIDDEN_SIZE, NUM_LATENTS, OPTIONS

from storm_hf.app.markup import heading_markup
from storm_hf.app.session import LatentView, nearest_states
from storm_hf.diagnostics.latent_decoder import DecoderConfig, ThoughtDecoder
from storm_hf.errors import ConfigurationError, PromptError
from storm_hf.evaluation.batch import answer_questions
from storm_hf.evaluation.thought_gallery import Gallery, ThoughtGallery
from storm_hf.inputs.prompts import PromptEncoder


@pytest.fixture(scope="module")
def thinking(session, examples):
    return session.think(examples.episodes[0].clip_path, "where is the ball ?", OPTIONS)


def test_thinking_costs_its_latents_and_direct_answering_none(thinking):
    assert thinking.direct.forward_passes == 1
    assert thinking.own.forward_passes == NUM_LATENTS + 1
    assert thinking.direct.latents is None
    assert len(thinking.own.steps) == NUM_LATENTS


@pytest.mark.parametrize("step", [None, 1])
def test_zeros_are_fed_where_they_were_asked_for(session, thinking, step):
    again = session.rethink(thinking, "zero", step=step)
    is_zero = [not latent.any() for latent in again.reply.latents]
    assert is_zero == [step in (None, number) for number in range(NUM_LATENTS)]
    assert again.intervention.replaced == tuple(number for number in range(NUM_LATENTS) if is_zero[number])
    assert again.reply.forward_passes == thinking.own.forward_passes
    assert again.donor is None


def test_steps_after_a_changed_one_are_thought_anew(session, thinking):
    own, changed = thinking.own.latents, session.rethink(thinking, "own", step=1, source=3).reply.latents
    np.testing.assert_allclose(changed[0], own[0], atol=1e-5)
    np.testing.assert_allclose(changed[1], own[3], atol=1e-5)
    assert not np.allclose(changed[2], own[2], atol=1e-3)


def test_another_clip_gives_its_thoughts(session, thinking, examples):
    other = examples.episodes[1].clip_path
    again = session.rethink(thinking, "donor", other_clip=other)
    asked = session.think(other, thinking.question.text, OPTIONS)
    np.testing.assert_allclose(again.reply.latents, asked.own.latents, atol=1e-5)
    assert again.donor == asked.own.text


def test_answer_from_the_thought_alone_is_that_of_generation_without_the_clip(session, thinking):
    again = session.rethink(thinking, "latents_only", step=1)
    question, prompts = thinking.question.row(), PromptEncoder(session.processor, session.model.config, NUM_LATENTS)
    (expected,) = answer_questions(session.model, prompts, [question], max_new_tokens=64, intervene=again.intervention)
    assert (again.reply.text, again.intervention.replaced, again.intervention.generation_arguments()) == (
        expected.text,
        (),
        {"latent_bottleneck": True},
    )
    np.testing.assert_allclose(
        again.reply.latents, thinking.own.latents, atol=1e-3
    )  # read whole, and on from the clip
    assert again.reply.forward_passes == thinking.own.forward_passes + 1  # the second, short reading


@pytest.mark.parametrize(
    ("kind", "steps", "message"),
    [
        ("donor", {}, "another clip"),
        ("own", {}, "changes nothing"),
        ("own", {"step": 2, "source": 2}, "changes nothing"),
        ("zero", {"step": NUM_LATENTS}, "a step from 1 to 4 but got 5"),
        ("ones", {}, "Expected one of own, zero"),
    ],
)
def test_change_that_cannot_be_made_is_refused(session, thinking, kind, steps, message):
    with pytest.raises(ConfigurationError, match=message):
        session.rethink(thinking, kind, **steps)


def test_clip_beyond_the_limit_is_refused(session, stranger):
    with pytest.raises(PromptError, match="2 at most"):
        replace(session, max_seconds=2.0).think(stranger, "where ?")


def test_nearest_known_thought_is_named_first_as_ask_and_report_name_it():
    """The eight nearest are mostly another state: a vote among them named that one."""
    known = np.concatenate([np.eye(4)[:1], 0.9 * np.eye(4)[[0] * 8] + 0.45 * np.eye(4)[[1] * 8], np.eye(4)[[2] * 4]])
    gallery = Gallery(known.astype(np.float32), ["left"] + ["right"] * 8 + ["middle"] * 4)
    latent = np.array([[1.0, 0.02, 0.01, 0.0]])
    (named,) = nearest_states(latent, gallery)
    found = ThoughtGallery(gallery.latents, gallery.states, np.zeros((13, 1, 1, 3), np.uint8)).neighbours(latent)
    assert named[0] == (found.state[0], pytest.approx(found.share[0]))
    assert [state for state, _ in named] == [gallery.nearest(latent)[0][0], "right"] == ["left", "right"]
    assert sum(share for _, share in named) <= 1


def test_zero_resembles_no_known_thought():
    gallery = Gallery(np.eye(2, dtype=np.float32), ["left", "right"])
    assert nearest_states(np.array([[1.0, 0.0], [0.0, 0.0]]), gallery) == [(("left", pytest.approx(1, abs=1e-3)),), ()]


@pytest.mark.parametrize(("has_data", "dataset"), [(True, "data"), (False, "DATASET")])
def test_page_without_a_decoder_names_the_command_that_makes_one(session, tmp_path, has_data, dataset):
    if has_data:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "manifest.json").touch()
        dataset = tmp_path / dataset
    local = replace(session, folder=str(tmp_path / "storm"))
    command = f"storm imagine --model {tmp_path / 'storm'} --dataset {dataset} --out runs/imagined"
    assert local.decoder_command == command
    assert command in heading_markup(local)
    drawing = replace(local, latent_view=LatentView(ThoughtDecoder(DecoderConfig(HIDDEN_SIZE, 16, 32, "targets"))))
    for other in (drawing, replace(session, folder="")):  # it has one, or it lies on the Hub
        assert "storm imagine" not in heading_markup(other)


def test_checkpoint_with_a_decoder_draws(thinking, tmp_path):
    ThoughtDecoder(DecoderConfig(HIDDEN_SIZE, 16, 32, "targets")).save(tmp_path)
    steps = LatentView.of(tmp_path).look(thinking.own.latents)
    assert [step.picture.shape for step in steps] == [(16, 32, 3)] * NUM_LATENTS
    assert all(step.resembles == () for step in steps)
