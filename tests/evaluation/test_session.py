"""A session answers as `ask` does, and reads each clip once."""

import copy

import numpy as np
import pytest
from tests.evaluation.world_checkpoint import NUM_LATENTS, OPTIONS
from tests.video.clips import encode, numbered_frames

from storm_hf import StormSession
from storm_hf.errors import ConfigurationError, LatentError, PromptError
from storm_hf.evaluation import ClipQuestion, ask, ask_with_replaced_latents, load_checkpoint, read_clip
from storm_hf.evaluation.batch import counted_passes
from storm_hf.interventions.intervention import make_intervention
from storm_hf.interventions.kind import OF_ONE_QUESTION
from storm_hf.video import VideoClip


TEXTS = ("Where is the ball?", "Is it left?", "Where is the ball, and where was it at first?")


@pytest.fixture(scope="module")
def loaded(checkpoint):
    return load_checkpoint(str(checkpoint))


@pytest.fixture(scope="module")
def clips(loaded, tmp_path_factory):
    """Two clips of different lengths."""
    folder = tmp_path_factory.mktemp("clips")
    paths = [encode(folder / f"{count}.mp4", numbered_frames(count)) for count in (4, 6)]
    return [read_clip(path, loaded[1]) for path in paths]


@pytest.fixture(scope="module")
def questions(clips):
    """Open questions and questions with options, about two clips in turn."""
    forms = [(text, options) for text in TEXTS for options in ((), OPTIONS)]
    return [ClipQuestion(clip, text, options) for text, options in forms for clip in clips]


def assert_same(found, expected):
    assert (found.text, found.choice, found.token_ids) == (expected.text, expected.choice, expected.token_ids)
    if expected.latents is None:
        assert found.latents is None
    else:
        np.testing.assert_allclose(found.latents, expected.latents, atol=1e-3)  # large weights: a step enlarges noise


@pytest.fixture
def counted(loaded, monkeypatch):
    """Calls of the video processor and of the vision tower."""
    counts = {"prepared": 0, "encoded": 0}
    model, processor = loaded
    kind, prepare = type(processor.video_processor), type(processor.video_processor).__call__

    def count(self, *args, **kwargs):
        counts["prepared"] += 1
        return prepare(self, *args, **kwargs)

    monkeypatch.setattr(kind, "__call__", count)
    hook = model.backbone.base_model.visual.register_forward_hook(
        lambda *_: counts.update(encoded=counts["encoded"] + 1)
    )
    yield counts
    hook.remove()


@pytest.mark.parametrize("num_latents", [None, 2, 0])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_answers_are_those_of_asking_one_by_one_in_their_order(loaded, questions, num_latents, batch_size):
    settings = {"num_latents": num_latents, "max_new_tokens": 6}
    found = StormSession(*loaded).ask_all(questions, batch_size=batch_size, **settings)
    for answer, question in zip(found, questions, strict=True):
        assert_same(answer, ask(*loaded, question, **settings))


def test_each_clip_is_prepared_and_encoded_once(loaded, questions, counted):
    StormSession(*loaded).ask_all(questions, max_new_tokens=1)
    assert counted == {"prepared": 2, "encoded": 2}


def test_later_questions_go_on_from_the_clips_that_are_kept(loaded, clips, counted):
    session = StormSession(*loaded, max_clips=2)
    for text in TEXTS:
        for clip in clips:
            session.ask(ClipQuestion(clip, text), max_new_tokens=1)
            session.ask(ClipQuestion(clip, text), num_latents=0, max_new_tokens=1)
    assert counted["encoded"] == 2
    assert len(session.prefixes) == 2


def test_clip_that_is_read_beforehand_costs_its_question_alone(loaded, questions):
    session = StormSession(*loaded)
    session.read(questions[0])
    with counted_passes(loaded[0]) as calls:
        answer = session.ask(questions[0], max_new_tokens=3)
    assert len(calls) == NUM_LATENTS + 1 + len(answer.token_ids) - 1
    assert (session.prefixes.num_read, session.prefixes.num_reused) == (1, 1)


def test_clip_that_is_read_again_from_its_file_is_the_same_clip(loaded, clips, counted):
    session = StormSession(*loaded)
    for _ in range(2):
        clip = VideoClip(**{**vars(clips[0]), "frames": clips[0].frames.copy()})
        session.ask(ClipQuestion(clip, TEXTS[0]), max_new_tokens=1)
    assert counted == {"prepared": 1, "encoded": 1}


def test_clip_of_the_same_size_that_shows_something_else_is_another_one(loaded, clips, counted):
    session = StormSession(*loaded)
    other = VideoClip(**{**vars(clips[0]), "frames": clips[0].frames[::-1].copy()})
    for clip in (clips[0], other):
        question = ClipQuestion(clip, TEXTS[0])
        assert_same(session.ask(question, max_new_tokens=6), ask(*loaded, question, max_new_tokens=6))
    assert session.prefixes.num_read == 2


@pytest.mark.parametrize("kind", OF_ONE_QUESTION)
def test_replaced_latents_give_the_answer_of_asking_alone(loaded, questions, kind):
    session, question = StormSession(*loaded), questions[1]
    own = session.ask(question, max_new_tokens=6)
    found = session.ask_with_replaced_latents(question, own, kind, max_new_tokens=6)
    assert_same(found, ask_with_replaced_latents(*loaded, question, own, kind, max_new_tokens=6))


def test_latents_of_another_clip_can_be_fed(loaded, clips):
    session = StormSession(*loaded, max_clips=2)
    asked, donor = (session.ask(ClipQuestion(clip, TEXTS[0]), max_new_tokens=6) for clip in clips)
    intervention = make_intervention("donor", donor.latents[None], donors=np.zeros(1, dtype=int))
    answer = session.ask_under(intervention, ClipQuestion(clips[0], TEXTS[0]), NUM_LATENTS, max_new_tokens=6)
    assert answer.token_ids != asked.token_ids
    np.testing.assert_allclose(answer.latents[0], asked.latents[0], atol=2e-5)  # its own, before what was fed


def test_no_question_has_no_answer(loaded):
    assert StormSession(*loaded).ask_all([]) == []


def test_errors_are_those_of_asking_alone(loaded, clips, questions):
    session = StormSession(*loaded)
    with pytest.raises(PromptError, match="this model reads 1024. Ask a shorter question"):
        session.ask(ClipQuestion(clips[0], "ball " * 10_000))
    with pytest.raises(LatentError, match="max_num_latents=64"):
        session.ask(questions[0], num_latents=65)
    silent = session.ask(questions[0], num_latents=0, max_new_tokens=1)
    with pytest.raises(LatentError, match="no latents to replace"):
        session.ask_with_replaced_latents(questions[0], silent, "zero")
    own = session.ask(questions[0], max_new_tokens=1)
    with pytest.raises(ConfigurationError, match="Expected one of zero"):
        session.ask_with_replaced_latents(questions[0], own, "donor")


def test_answers_are_greedy_whatever_the_checkpoint_generates_with(loaded, questions, monkeypatch):
    model, processor = loaded
    expected = [ask(model, processor, question, max_new_tokens=6) for question in questions]
    monkeypatch.setattr(model, "generation_config", copy.deepcopy(model.generation_config))
    model.generation_config.update(num_beams=3, num_return_sequences=2)
    session = StormSession(model, processor).ask_all(questions, max_new_tokens=6)
    for question, answer, found in zip(questions, expected, session, strict=True):
        assert found.token_ids == answer.token_ids
        assert ask(model, processor, question, max_new_tokens=6).token_ids == answer.token_ids


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        (
            lambda session, question: session.ask_all([question], batch_size=0),
            ConfigurationError,
            "`batch_size` must be 1",
        ),
        (lambda session, question: session.ask(question, num_latents=-1), LatentError, "of 0 or more, got -1"),
        (lambda session, question: session.ask(question, num_latents=1.5), LatentError, "of 0 or more, got 1.5"),
        (lambda session, question: session.ask(ClipQuestion("clip.mp4", "Who?")), PromptError, "got str. `read_clip"),
        (
            lambda session, _: StormSession(session.model, session.processor, max_clips=-1),
            ConfigurationError,
            "`max_clips`",
        ),
    ],
    ids=["batch size", "fewer than none", "half a latent", "a path", "fewer clips than none"],
)
def test_what_cannot_be_asked_is_refused_in_a_sentence(asked, error, message, loaded, questions):
    with pytest.raises(error, match=message):
        asked(StormSession(*loaded), questions[0])


def test_processor_of_the_caller_stays_as_it_was(loaded):
    before = loaded[1].video_processor
    StormSession(*loaded)
    assert loaded[1].video_processor is before
