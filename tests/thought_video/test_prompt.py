import json

import pytest
from tests.thought_video.questions import numbered_clip, question
from tests.video.clips import numbers

from storm_hf.errors import ConfigurationError, DatasetError, ServerError, VideoReadError
from storm_hf.thought_video import ChatPrompt, TemplatePrompt


class Echo:
    """A chat model that counts how often it is asked."""

    version = "0123abcd"

    def __init__(self, name="echo", answers=("The ball rolls left.",), **settings):
        self.name = name
        self.settings = settings
        self.answers = list(answers)
        self.asked = []

    def complete(self, messages):
        self.asked.append(messages[-1])
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


ASKED = question("nowhere.mp4", question="Where is the ball?", time_seconds=2.5)


def test_template_fills_in_the_fields():
    template = TemplatePrompt("{question} [{options}] {answer} at {time_seconds:.1f} s, {{braces}} {end_seconds}|")
    assert template.write(ASKED) == "Where is the ball? [A. left; B. right] left at 2.5 s, {braces} |"


def test_default_template_shows_the_answer():
    assert TemplatePrompt().shows_answer
    assert TemplatePrompt().write(ASKED).endswith("why the answer is: left.")
    assert not TemplatePrompt("{question}").shows_answer


@pytest.mark.parametrize(
    "template", ["{answr}", "{question.__class__}", "{options[0]}", "{}", "{0}", "{question", "no field", ""]
)
def test_template_that_does_not_fit_is_refused(template):
    with pytest.raises(ConfigurationError):
        TemplatePrompt(template)


@pytest.mark.parametrize("template", ["{source} ", "{start_seconds:.1f}"])
def test_template_without_content_for_a_question_concerns_this_question_alone(template):
    with pytest.raises(DatasetError, match="'q1'"):
        TemplatePrompt(template).write(ASKED)


def test_chat_model_is_asked_once_for_each_question(tmp_path):
    model = Echo()
    for _ in range(2):
        assert ChatPrompt(model, tmp_path).write(ASKED) == "The ball rolls left."
    assert len(model.asked) == 1
    assert "Where is the ball?" in model.asked[0].text
    assert "Right answer: left" in model.asked[0].text


def test_answer_is_kept_with_who_gave_it(tmp_path):
    ChatPrompt(Echo("qwen", seed=1), tmp_path, TemplatePrompt("Show {answer}.")).write(ASKED)
    (path,) = tmp_path.iterdir()
    assert json.loads(path.read_text()) == {
        "model": "qwen",
        "revision": "0123abcd",
        "settings": {"seed": 1},
        "request": "Show left.",
        "prompt": "The ball rolls left.",
    }


def test_other_models_settings_words_and_pictures_are_asked_anew(tmp_path):
    cache, asked = tmp_path / "cache", question(numbered_clip(tmp_path))
    writers = [
        ChatPrompt(Echo(), cache),
        ChatPrompt(Echo("other"), cache),
        ChatPrompt(Echo(seed=2), cache),
        ChatPrompt(Echo(), cache, TemplatePrompt("{question}")),
        ChatPrompt(Echo(), cache, num_key_frames=1),
        ChatPrompt(Echo(), cache, num_key_frames=2),
    ]
    for writer in writers:
        writer.write(asked)
    assert [len(writer.model.asked) for writer in writers] == [1] * 6


def test_key_frames_are_of_what_the_question_sees(tmp_path):
    model = Echo()
    writer = ChatPrompt(model, tmp_path / "cache", num_key_frames=3)
    writer.write(question(numbered_clip(tmp_path), time_seconds=2.1))
    assert [numbers(image[None])[0] for image in model.asked[0].images] == [0, 10, 20]


def test_empty_answer_is_an_error_of_this_question_and_not_kept(tmp_path):
    model = Echo(answers=[" ", "Now it falls."])
    with pytest.raises(DatasetError, match="the model echo gave an empty one"):
        ChatPrompt(model, tmp_path).write(ASKED)
    assert ChatPrompt(model, tmp_path).write(ASKED) == "Now it falls."


def test_server_that_is_away_is_an_error_and_not_kept(tmp_path):
    model = Echo(answers=[ServerError("http://x/v1 gave no answer"), "Now it falls."])
    with pytest.raises(ServerError, match="http://x/v1"):
        ChatPrompt(model, tmp_path).write(ASKED)
    assert ChatPrompt(model, tmp_path).write(ASKED) == "Now it falls."


def test_clip_that_cannot_be_shown_is_an_error(tmp_path):
    with pytest.raises(VideoReadError, match=r"nowhere\.mp4"):
        ChatPrompt(Echo(), tmp_path, num_key_frames=1).write(ASKED)


def test_writer_says_who_it_is(tmp_path):
    assert (TemplatePrompt().name, ChatPrompt(Echo("qwen"), tmp_path).name) == ("template", "qwen")
    assert not ChatPrompt(Echo(), tmp_path, TemplatePrompt("{question}")).shows_answer
