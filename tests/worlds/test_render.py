"""Drawing and enlarging."""

import numpy as np

from storm_hf.worlds.render import PALETTE, canvas, diagonal, enlarge, open_box, shape_masks


def test_enlarging_turns_each_pixel_into_a_square():
    frames = np.arange(2 * 2 * 3 * 3, dtype=np.uint8).reshape(2, 2, 3, 3)
    large = enlarge(frames, factor=4)
    assert large.shape == (2, 8, 12, 3)
    np.testing.assert_array_equal(large[:, ::4, ::4], frames)
    np.testing.assert_array_equal(large[:, 3::4, 3::4], frames)


def test_diagonals_slant_as_they_are_called():
    slash, back = canvas(1, 1), canvas(1, 1)
    diagonal(slash, 0, 0, rising=True, colour=PALETTE["red"])
    diagonal(back, 0, 0, rising=False, colour=PALETTE["red"])
    assert tuple(slash[4, 12]) == tuple(back[12, 12]) == PALETTE["red"]
    assert tuple(slash[4, 4]) != PALETTE["red"] != tuple(back[4, 12])


def test_open_box_can_be_looked_into():
    frame = canvas(1, 1)
    open_box(frame, 4, 3, 8, 10, (255, 0, 0))
    assert frame[5:12, 4:12].max() == 30
    assert (frame[4, 3:13, 0] == 255).all()


def test_shapes_are_all_different():
    masks = list(shape_masks().values())
    differences = [(one != other).sum() for one in masks for other in masks if one is not other]
    assert min(differences) >= 8
