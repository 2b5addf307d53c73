import pytest

from storm_hf.inputs.chain import split_steps


@pytest.mark.parametrize(
    ("chain", "steps"),
    [
        ("1. Two cups swap. Red moves. 2. Red is right.", ["1. Two cups swap. Red moves.", "2. Red is right."]),
        ("Look. Step 1: Red moves. Step 2: It stops.", ["Look.", "Step 1: Red moves.", "Step 2: It stops."]),
        ("There are 3. Then 2. And so on.", ["There are 3.", "Then 2.", "And so on."]),
        ("He counts to 1. That is all.", ["He counts to 1.", "That is all."]),
        ("1) a\n2) b. c.\n", ["1) a", "2) b. c."]),
    ],
)
def test_numbers_that_count_up_begin_steps_and_others_do_not(chain, steps):
    assert split_steps(chain) == steps
