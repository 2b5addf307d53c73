"""A world reads off its own pictures what they show, also when they are small, blurred or drawn a little wrong."""

import numpy as np
import pytest

from storm_hf.errors import ConfigurationError
from storm_hf.worlds.render import enlarge, shrink


def test_second_frame_of_each_pair_tells_the_state(world):
    for seed in range(10):
        episode = world.episode(seed)
        assert tuple(world.read_frame(frame) for frame in episode.thought[1::2]) == episode.states


def test_blurred_and_noisy_frames_are_read_the_same(standard_world):
    generator = np.random.default_rng(0)
    for seed in range(5):
        episode = standard_world.episode(seed)
        for frame, state in zip(episode.thought[1::2], episode.states, strict=True):
            small = shrink(frame, *standard_world.frame_size)
            drawn = 0.6 * small + 0.4 * small.mean() + generator.normal(0, 20, small.shape)
            assert standard_world.read_frame(drawn.clip(0, 255).astype(np.uint8)) == state


def test_shrinking_undoes_enlarging():
    frame = np.random.default_rng(0).integers(0, 256, (16, 32, 3)).astype(np.uint8)
    assert np.array_equal(shrink(enlarge(frame[None], 3)[0], 16, 32), frame)


def test_frame_of_another_shape_is_refused(standard_world):
    height, width = standard_world.frame_size
    for shape in ((height, width), (height, width + 16, 3), (height // 2, width // 2, 3)):
        with pytest.raises(ConfigurationError, match=f"{height} x {width} or a multiple"):
            standard_world.read_frame(np.zeros(shape, dtype=np.uint8))
