"""No two splits ever share a seed."""

from itertools import combinations

import pytest

from storm_hf.errors import ConfigurationError
from storm_hf.worlds import SPLITS, split_seeds


def test_full_splits_of_several_base_seeds_are_disjoint():
    ranges = [split_seeds(split, 1_000_000, seed) for split in SPLITS for seed in (0, 1, 7)]
    assert all(one.stop <= other.start or other.stop <= one.start for one, other in combinations(ranges, 2))


def test_asking_for_more_keeps_the_first_seeds():
    assert list(split_seeds("test", 5, 3)) == list(split_seeds("test", 9, 3))[:5]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", 1_000_001), "from 0 to 1000000"),
        (("train", -1), "from 0 to 1000000"),
        (("exam", 3), "train, validation, test, longer"),
        (("train", 3, -1), "base seed of 0 or more"),
    ],
)
def test_seeds_that_do_not_exist_are_refused(arguments, words):
    with pytest.raises(ConfigurationError, match=words):
        split_seeds(*arguments)
