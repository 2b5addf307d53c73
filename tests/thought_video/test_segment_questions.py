from collections import Counter

import numpy as np
import pytest

from storm_hf.errors import ConfigurationError
from storm_hf.thought_video import SegmentQuestion, SegmentSettings


def draw(task, seed, **settings):
    return SegmentQuestion.draw(task, seed, SegmentSettings(**settings))


@pytest.mark.parametrize("task", ["order", "next"])
def test_seed_decides_the_question(task):
    assert draw(task, 5) == draw(task, 5)
    assert len({draw(task, seed).crop for seed in range(20)}) == 20


@pytest.mark.parametrize(("task", "chance"), [("order", 1 / 6), ("next", 1 / 4)])
def test_answers_are_balanced(task, chance):
    answers = Counter(draw(task, seed).answer for seed in range(1200))
    assert len(answers) == round(1 / chance)
    assert all(abs(count / 1200 - chance) < 0.05 for count in answers.values())


@pytest.mark.parametrize("num_orders", [4, 6])
def test_answer_says_which_shown_part_comes_first_second_and_third(num_orders):
    for seed in range(50):
        drawn = draw("order", seed, num_orders=num_orders)
        assert [drawn.shown[int(number) - 1] for number in drawn.answer] == [0, 1, 2]
        assert drawn.answer in drawn.options
        assert len({*drawn.options}) == num_orders


def test_correct_order_stands_anywhere_among_four():
    drawn = [draw("order", seed, num_orders=4) for seed in range(400)]
    assert all(count > 60 for count in Counter(each.options.index(each.answer) for each in drawn).values())


def test_answer_names_the_candidate_that_follows():
    for seed in range(50):
        drawn = draw("next", seed)
        assert drawn.shown[0] == 0
        assert drawn.shown[int(drawn.answer)] == drawn.thought[0] == 1


@pytest.mark.parametrize(("task", "num_parts"), [("order", 3), ("next", 5)])
@pytest.mark.parametrize("spare", [0.0, 3.0])
def test_parts_lie_in_the_film_without_overlap_and_the_true_ones_follow_each_other(task, num_parts, spare):
    duration = num_parts * 0.5 + spare
    for seed in range(50):
        starts = draw(task, seed).starts(duration, 0.5)
        assert starts.min() >= 0
        assert starts.max() + 0.5 <= duration + 1e-9
        assert (np.diff(np.sort(starts)) >= 0.5 - 1e-9).all()
        assert np.diff(starts[: 3 if task == "order" else 2]) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": ()}, "order, next or both"),
        ({"tasks": ("order", "order")}, "each once"),
        ({"tasks": ("sort",)}, "`tasks` must be"),
        ({"segment_seconds": 0.1, "fps": 2.0}, "parts that hold a frame"),
        ({"frame_size": (27, 28)}, "even height"),
        ({"num_orders": 5}, "`num_orders` must be one of 4, 6"),
        ({"min_crop": 1.5}, "`min_crop` must be a number above 0 and up to 1"),
    ],
)
def test_settings_that_ask_nothing_are_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        SegmentSettings(**settings)
