"""Videos with changed headers are read or refused: nothing crashes, hangs, or leaves files open."""

import pytest
from benchmarks.video_fuzz import read_inputs


@pytest.mark.parametrize("count", [150, pytest.param(3000, marks=pytest.mark.slow)])
def test_videos_with_changed_headers_are_read_or_refused(count):
    outcomes, problems, _ = read_inputs(1_000_000, count)
    assert problems == []
    assert outcomes.total() == count
    assert min(outcomes["read"], outcomes["VideoReadError"]) > count // 10, "changes reach what matters"
