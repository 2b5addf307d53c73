import pytest

from storm_hf.errors import ConfigurationError
from storm_hf.evaluation.harness.settings import ChatSettings


def test_arguments_of_lmms_eval_are_taken_and_its_own_left_out():
    arguments = {"pretrained": "m", "num_latents": 4, "batch_size": "3", "max_batch_size": None, "device": "cpu"}
    settings = ChatSettings.from_arguments(arguments)
    assert settings == ChatSettings("m", num_latents=4, batch_size=3, device="cpu")


def test_folder_called_by_a_number_stays_a_name():
    assert ChatSettings.from_arguments({"pretrained": 7}).pretrained == "7"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({}, "Expected `pretrained=…`"),
        ({"pretrained": "m", "num_latent": 4}, "the arguments of the model `storm` but got num_latent."),
        ({"pretrained": "m", "prompt": "long"}, "`prompt` must be one of direct, cot, got 'long'"),
        ({"pretrained": "m", "num_latents": -1}, "`num_latents` must be a whole number of 0 or more, got -1"),
        ({"pretrained": "m", "num_latents": 1.5}, "got 1.5"),
        ({"pretrained": "m", "max_frames": 0}, "`max_frames` must be a whole number of 1 or more, got 0"),
        ({"pretrained": "m", "fps": 0}, "`fps` must be a number above 0, got 0"),
        ({"pretrained": "m", "batch_size": "auto"}, "got 'auto'"),
        ({"pretrained": "m", "video_backend": "opencv"}, "auto, pyav, decord, torchcodec but got 'opencv'"),
    ],
)
def test_what_cannot_be_is_said(wrong, told):
    with pytest.raises(ConfigurationError) as error:
        ChatSettings.from_arguments(wrong)
    assert told in str(error.value)


def test_earlier_name_of_an_intervention_is_refused_with_the_new_ones():
    with pytest.raises(ConfigurationError, match="`mean` has become `mean_over_steps` .* and `mean_over_questions`"):
        ChatSettings.from_arguments({"pretrained": "m", "latents": "mean"})


def test_no_latents_asks_for_no_latents_whatever_their_number():
    assert ChatSettings("m", num_latents=8, latents="no_latents").wanted_latents == 0
    assert ChatSettings("m", num_latents=8).wanted_latents == 8
    assert ChatSettings("m").wanted_latents is None


def test_answers_depend_on_the_prompt_but_not_on_the_batch():
    settings = ChatSettings("m", batch_size=1)
    assert settings.identity == ChatSettings("m", batch_size=8, device="cuda", answers="log").identity
    assert settings.identity != ChatSettings("m", prompt="cot").identity


def test_answers_depend_on_the_backend_unless_it_is_the_usual_one(monkeypatch):
    plain = ChatSettings("m")
    assert plain.identity == ChatSettings("m", video_backend="pyav").identity
    assert plain.identity == ChatSettings("m", video_backend="auto").identity
    assert plain.identity != ChatSettings("m", video_backend="decord").identity
    monkeypatch.setenv("STORM_VIDEO_BACKEND", "decord")
    assert plain.identity == ChatSettings("m", video_backend="decord").identity
