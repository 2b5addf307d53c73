import math

import pytest

from storm_hf.evaluation.bootstrap import clustered_standard_error
from storm_hf.evaluation.results import score_readings
from storm_hf.evaluation.scorers import Question, Reading


def question(video):
    return Question("?", ("a", "b"), "A", video=video)


def test_alone_standing_questions_have_the_usual_standard_error():
    scores = [1, 0, 0, 1, 1]
    expected = math.sqrt(0.6 * 0.4 / 5)
    assert clustered_standard_error(scores, list("abcde")) == pytest.approx(expected)


def test_questions_that_always_agree_count_as_one():
    once, thrice = (
        clustered_standard_error([1, 0, 1, 1], list("abcd")),
        clustered_standard_error([1, 0, 1, 1] * 3, list("abcd") * 3),
    )
    assert thrice == pytest.approx(once)
    assert clustered_standard_error([1, 0, 1, 1] * 3, [str(index) for index in range(12)]) < once


def test_a_hand_made_case_of_the_formula():
    # mean 1/2, residual sums of the clusters: +1, -1/2, -1/2
    assert clustered_standard_error([1, 1, 0, 0], ["a", "a", "b", "c"]) == pytest.approx(
        math.sqrt(1 + 0.25 + 0.25) / 4
    )


def test_one_video_gives_no_error():
    assert clustered_standard_error([1, 0], ["a", "a"]) is None
    assert clustered_standard_error([], []) is None


@pytest.mark.parametrize(("num_videos", "has_error"), [(2, False), (9, False), (10, True)])
def test_few_videos_give_no_error_rather_than_one_that_is_too_small(num_videos, has_error):
    questions = [question(str(index)) for index in range(num_videos)] * 2
    readings = [Reading("A", index % 2 == 0, readable=True) for index in range(2 * num_videos)]
    assert (score_readings(questions, readings).standard_error is not None) == has_error


def test_what_a_scorer_leaves_out_is_not_in_the_denominator_but_is_counted():
    readings = [
        Reading("A", True, readable=True),
        Reading("B", False, readable=True),
        Reading(None, False, readable=False, counted=False),
        Reading(None, None, readable=False),
    ]
    score = score_readings([question("v"), question("v"), question("w"), question("x")], readings)
    assert score.accuracy == pytest.approx(1 / 3)
    assert (score.num_asked, score.num_counted, score.num_unreadable, score.num_unjudged, score.num_videos) == (
        4,
        3,
        2,
        1,
        2,
    )


def test_nothing_counted_is_no_accuracy_and_never_zero():
    score = score_readings([question("v")], [Reading(None, None, readable=True, counted=False)])
    assert score.accuracy is None
    assert score.standard_error is None
