import numpy as np
import pytest

from storm_hf.errors import DatasetError, StormError
from storm_hf.evaluation.bootstrap import Interval, mean_interval, paired_difference, share_interval


def _resampled(values):
    generator = np.random.default_rng(0)
    return values[generator.integers(len(values), size=(10_000, len(values)))].mean(axis=1)


def draw(num_questions, seed=0):
    return np.random.default_rng(seed).normal(3.0, 2.0, num_questions)


def test_interval_is_that_of_the_normal_approximation_for_many_questions():
    values = draw(2000)
    interval = mean_interval(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_interval_covers_the_true_mean_about_95_times_of_100():
    intervals = [mean_interval(draw(60, seed), num_resamples=500) for seed in range(300)]
    covered = np.mean([interval.low <= 3.0 <= interval.high for interval in intervals])
    assert 0.90 <= covered <= 0.98


def test_difference_of_the_same_questions_is_narrower_than_their_own_spread():
    first = draw(200)
    second = first - 0.5 + 0.01 * np.random.default_rng(1).standard_normal(200)
    difference = paired_difference(first, second)
    assert difference.low < 0.5 < difference.high
    assert difference.high - difference.low < 0.01
    assert mean_interval(first).high - mean_interval(first).low > 0.4


def test_repeated_questions_of_a_clip_make_no_surer():
    values, clips = draw(50), np.arange(50)
    repeated = mean_interval(np.repeat(values, 8), clusters=np.repeat(clips, 8))
    once = mean_interval(values)
    assert repeated.high - repeated.low == pytest.approx(once.high - once.low, rel=0.05)
    naive = mean_interval(np.repeat(values, 8))
    assert naive.high - naive.low < 0.5 * (once.high - once.low)


def test_clusters_of_unequal_size_keep_the_mean_over_questions():
    interval = mean_interval([1.0, 1.0, 1.0, 0.0], clusters=["a", "a", "a", "b"])
    assert interval.mean == 0.75
    assert interval.low < 0.0 < 1.0 < interval.high  # of two clips


def test_seed_decides_the_draws():
    assert mean_interval(draw(60), seed=1) == mean_interval(draw(60), seed=1)
    assert mean_interval(draw(60), seed=1) != mean_interval(draw(60), seed=2)


def test_many_questions_are_drawn_in_pieces_of_the_same_law(monkeypatch):
    whole = mean_interval(draw(300), num_resamples=2000)
    monkeypatch.setattr("storm_hf.evaluation.bootstrap._DRAWS_AT_ONCE", 1000)
    pieces = mean_interval(draw(300), num_resamples=2000)
    assert pieces.low == pytest.approx(whole.low, abs=0.05)
    assert pieces.high == pytest.approx(whole.high, abs=0.05)


@pytest.mark.parametrize("sizes", [[1] * 3, [1] * 5, [1] * 8, [1] * 12, [40, *[1] * 11], [9, 1, 5, 2, 2, 1, 1, 20]])
def test_interval_of_few_clusters_misses_the_difference_in_few_cases(sizes):
    """Questions about one clip mostly share their outcome: -1, 0 or 1, whose mean is 0.2."""
    generator, missed = np.random.default_rng(0), 0
    clips = np.repeat(np.arange(len(sizes)), sizes)
    for _ in range(400):
        shared, own = (generator.choice([-1, 0, 1], count, p=[0.1, 0.6, 0.3]) for count in (len(sizes), len(clips)))
        values = np.where(generator.random(len(clips)) < 0.5, shared[clips], own)
        interval = paired_difference(values > 0, values < 0, clusters=clips, num_resamples=200)
        missed += not interval.low <= 0.2 <= interval.high
    assert missed / 400 <= 0.08


def test_one_clip_says_nothing_about_others():
    interval = mean_interval([1.0, 2.0, 3.0], clusters=["a"] * 3)
    assert (interval.mean, interval.low, interval.high) == (2.0, -np.inf, np.inf)
    difference = paired_difference([1, 1, 0], [0, 0, 0], clusters=["a"] * 3)
    assert (difference.low, difference.high) == (-1.0, 1.0)


def test_difference_on_which_all_clips_agree_is_as_wide_as_so_few_leave_open():
    clips = [f"clip {index}" for index in range(60)]
    assert paired_difference([1] * 60, [0] * 60, clusters=clips) == Interval(1.0, 0.95, 1.0)
    assert paired_difference([1] * 240, [1] * 240, clusters=clips * 4) == Interval(0.0, -0.05, 0.05)
    assert paired_difference([1] * 3, [1] * 3) == Interval(0.0, -1.0, 1.0)


def test_many_clusters_have_the_bootstrap_alone():
    first, second = np.random.default_rng(0).random((2, 200)) < 0.5
    found = mean_interval(first.astype(float) - second)
    assert paired_difference(first, second) == found
    assert np.isclose(found.low, np.percentile(_resampled(first.astype(float) - second), 2.5))


def test_share_of_all_is_not_certain():
    ten, thousand = share_interval([True] * 10), share_interval([True] * 1000)
    assert ten.mean == thousand.mean == 1.0
    assert 0.6 < ten.low < 0.8
    assert thousand.low > 0.99


def test_share_of_all_questions_about_one_clip_tells_next_to_nothing():
    assert share_interval([True] * 1000, clusters=["clip"] * 1000).low < 0.3


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [[1.0], [2.0]]])
def test_what_has_no_mean_is_refused(values):
    with pytest.raises(DatasetError, match="one finite number per question"):
        mean_interval(values)


def test_scores_of_other_questions_are_refused():
    with pytest.raises(StormError, match="two scores per question but got 3 and 2"):
        paired_difference([1, 2, 3], [1, 2])
    with pytest.raises(StormError, match="a cluster for each of 3 questions but got 2"):
        mean_interval([1, 2, 3], clusters=["a", "b"])
