"""Packets to decode for a frame."""

import numpy as np
import pytest

from storm_hf.video.timeline import Timeline


def timeline(packets, entry_points):
    """Frames in the order they are shown; `packets` are their positions in the order they are decoded."""
    keys = np.arange(len(packets))
    return Timeline(
        keys=keys,
        seconds=keys / 10,
        packets=np.array(packets),
        entry_points=np.array(entry_points),
        keyed_by_time=True,
        size=(64, 48),
        num_broken=0,
    )


# Decoded as I0 P3 B1 B2 I6 B4 B5 P7: frames 4 and 5 come after the keyframe I6, and need pictures from before it.
OPEN = timeline([0, 2, 3, 1, 5, 6, 4, 7], entry_points=[0, 4])
# The keyframe at packet 0 is hidden by an edit list, and so is the frame after it.
HIDDEN = timeline([2, 3, 4, 5], entry_points=[0, 4])


@pytest.mark.parametrize(
    ("frames", "ranges"),
    [
        ([0], [(0, 0)]),
        ([6], [(4, 4)]),
        ([7], [(4, 7)]),
        ([4], [(0, 5)]),
        ([0, 7], [(0, 0), (4, 7)]),
        ([3, 7, 3], [(0, 1), (4, 7)]),
        (range(8), [(0, 7)]),
    ],
)
def test_decoding_begins_at_the_last_keyframe_that_is_shown_no_later(frames, ranges):
    assert OPEN.packet_ranges(np.array(frames)) == ranges


def test_decoding_begins_at_the_first_packet_where_the_keyframe_is_hidden():
    assert HIDDEN.packet_ranges(np.array([1])) == [(0, 3)]
    assert HIDDEN.packet_ranges(np.array([3])) == [(4, 5)]
