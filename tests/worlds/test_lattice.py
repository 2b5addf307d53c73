"""The lattice: operations by hand, none of which loses a bit, and what its texts cost."""

import itertools

import numpy as np
import pytest

from storm_hf.worlds import make_world, split_words
from storm_hf.worlds.lattice import OPERATIONS, LatticePlan, Patterns


SMALL = make_world("lattice", num_rows=2, num_columns=4, tile_px=8, num_steps=1, min_operations=0, max_operations=1)
START = "11000101"
AFTER = {"left": "10011010", "down": "01011100", "across": "10100111", "below": "11001001"}


def advance(operation, state):
    return SMALL._advance(LatticePlan(state, (operation,), 0), 0, state)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_operation_does_what_it_says(operation):
    assert advance(operation, START) == AFTER[operation]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_no_operation_loses_a_bit(operation):
    assert len({advance(operation, state) for state in SMALL.state_names}) == 2**8


def test_state_has_at_least_44_bits_and_is_spread_evenly():
    world = make_world("lattice")
    assert len(world.state_names) >= 2**44
    tiles = np.array([[int(bit) for bit in world.describe(seed).states[-1]] for seed in range(400)])
    assert np.abs(tiles.mean(axis=0) - 0.5).max() < 0.12
    assert np.abs(np.corrcoef(tiles.T) - np.eye(48)).max() < 0.25


def test_a_tile_comes_to_depend_on_many():
    world = make_world("lattice")
    plan = LatticePlan("0" * 48, ("across", "below", "across", "below", "across", "below"), 5)
    touched = 0
    for tile in range(48):
        start = "0" * tile + "1" + "0" * (47 - tile)
        ends = world._states(LatticePlan(start, plan.operations, plan.row))[-1]
        touched += ends[-1] == "1"  # the last tile of all
    assert touched > 8


def test_answer_is_the_number_that_three_tiles_show():
    states = ["00000110"]
    assert SMALL._answer(LatticePlan(START, (None,), 1), states) == "six"
    assert SMALL._answer(LatticePlan(START, (None,), 0), states) == "zero"


def test_texts_say_the_pattern_in_blocks_and_tile_by_tile():
    world = make_world("lattice")
    episode = world.describe(0)
    assert len(split_words(episode.terse_chain)) == 6 * 48 // 4
    assert sum(word in ("on", "off") for word in split_words(episode.chain_of_thought)) == 6 * 48
    assert SMALL._syllables("10110110") == "ke mi"


def test_syllables_tell_patterns_apart():
    patterns = ["".join(bits) for bits in itertools.product("01", repeat=8)]
    assert len({SMALL._syllables(pattern) for pattern in patterns}) == 2**8


def test_patterns_know_their_members_without_listing_them():
    patterns = Patterns(48)
    assert "01" * 24 in patterns
    assert "01" * 23 not in patterns
    assert "2" * 48 not in patterns
    assert next(iter(patterns)) == "0" * 48
