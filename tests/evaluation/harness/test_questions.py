import pytest

from storm_hf.errors import PromptError
from storm_hf.evaluation.harness.requests import REASONING_REQUEST, read_question


def arguments(doc_id=3):
    return ("What?", lambda document: [], {"max_new_tokens": 16}, doc_id, "videomme", "test")


def conversation(*parts):
    return [
        {"role": "system", "content": [{"type": "text", "text": "Look."}]},
        {"role": "user", "content": list(parts)},
    ]


VIDEO = {"type": "video", "video": "clip.mp4"}


def test_direct_question_is_asked_in_the_words_of_the_task():
    asked = conversation(VIDEO, {"type": "text", "text": "What?"})
    question = read_question(arguments(), asked, "direct")
    assert (question.task, question.doc_id, question.generation["max_new_tokens"]) == ("videomme", 3, 16)
    assert question.conversation == conversation(VIDEO, {"type": "text", "text": "What?"})


def test_chain_of_thought_is_asked_for_after_the_words_of_the_task():
    question = read_question(arguments(), conversation(VIDEO, {"type": "text", "text": "What?"}), "cot")
    assert question.conversation[-1]["content"] == [VIDEO, {"type": "text", "text": "What?" + REASONING_REQUEST}]
    assert question.conversation[0] == conversation()[0]


def test_chain_of_thought_is_asked_for_where_a_video_comes_last():
    question = read_question(arguments(), conversation({"type": "text", "text": "What?"}, VIDEO), "cot")
    assert question.conversation[-1]["content"][-1] == {"type": "text", "text": REASONING_REQUEST.strip()}


@pytest.mark.parametrize("part", [{"type": "audio", "audio": "a.wav"}, {**VIDEO, "video_start": 1.0}])
def test_sound_and_parts_of_videos_are_refused(part):
    with pytest.raises(PromptError, match="videomme"):
        read_question(arguments(), conversation(part), "direct")
