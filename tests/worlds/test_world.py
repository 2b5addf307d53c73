"""Invariants of every world: determinism, balance, words, counterfactuals."""

import hashlib
import itertools
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from storm_hf.errors import ConfigurationError
from storm_hf.worlds import WORLD_NAMES, format_question, make_world, split_words
from storm_hf.worlds.render import ENLARGEMENT


DIGESTS = """
import hashlib
from storm_hf.worlds import WORLD_NAMES, make_world

digests = []
for name in WORLD_NAMES:
    for seed in (0, 7, 2_000_003):
        episode = make_world(name).episode(seed)
        words = {key: value for key, value in vars(episode).items() if key not in ("clip", "thought")}
        content = episode.clip.tobytes() + episode.thought.tobytes() + repr(words).encode()
        digests.append(hashlib.sha256(content).hexdigest())
"""


def text_of(episode):
    return [
        format_question(episode.question, episode.options),
        format_question(episode.question, episode.options, "letters"),
        episode.answer,
        *episode.options,
        episode.clip_caption,
        episode.thought_caption,
        episode.chain_of_thought,
        episode.terse_chain,
    ]


def test_episodes_are_the_same_in_every_process(warm_python):
    here: dict[str, list[str]] = {}
    exec(DIGESTS, here)
    there = warm_python.run(DIGESTS + "print(*digests)", Path.cwd()).stdout.split()
    assert here["digests"] == there
    assert len(set(there)) == 3 * len(WORLD_NAMES)


def test_describe_tells_what_episode_tells(world):
    for seed in range(5):
        episode = world.episode(seed)
        assert all(getattr(episode, name) == value for name, value in vars(world.describe(seed)).items())


def test_clip_and_thought_are_video_of_even_size_and_two_frames_a_step(world):
    episode = world.episode(1)
    assert episode.clip.dtype == episode.thought.dtype == np.uint8
    assert len(episode.thought) == 2 * world.num_steps == 2 * len(episode.states)
    assert len(episode.clip) % 2 == 0
    assert episode.clip.shape[1:] == episode.thought.shape[1:]
    assert all(size % (16 * ENLARGEMENT) == 0 for size in episode.clip.shape[1:3])


def test_every_option_is_right_equally_often(world):
    count = 3000
    answers = Counter(world.describe(seed).answer for seed in range(count))
    expected = count * world.chance
    assert world.chance == 1 / len(world.options)
    chi_squared = sum((answers[option] - expected) ** 2 / expected for option in world.options)
    assert (
        chi_squared < 2 * len(world.options) + 15
    )  # far in the tail: it fails on a bias of a few percent, not by luck


def test_the_world_speaks_only_words_of_its_vocabulary(world):
    spoken = {word for seed in range(300) for text in text_of(world.describe(seed)) for word in split_words(text)}
    assert spoken <= set(world.vocabulary)
    assert list(world.vocabulary) == sorted(set(world.vocabulary))
    assert all(len(split_words(word)) == 1 for word in world.vocabulary)


def test_options_are_single_words_and_the_question_asks(world):
    episode = world.describe(0)
    assert episode.question.endswith("?")
    assert all(split_words(option) == [option] for option in episode.options)
    assert episode.answer in episode.options
    assert all(state in world.state_names for state in episode.states)


def test_captions_have_one_sentence_per_frame_pair(world):
    episode = world.episode(3)
    assert episode.thought_caption.count(" .") == len(episode.thought) // 2
    assert episode.chain_of_thought.count(" .") == world.num_steps
    if episode.world != "bounce":  # whose only frame pair is told in two sentences
        assert episode.clip_caption.count(" .") == len(episode.clip) // 2


def test_captions_of_a_world_all_have_one_length(world):
    for field in ("clip_caption", "thought_caption", "chain_of_thought", "terse_chain"):
        assert len({len(split_words(getattr(world.describe(seed), field))) for seed in range(30)}) == 1


def test_asking_for_the_drawn_depth_changes_nothing(world):
    for seed in range(50):
        drawn = world.describe(seed)
        assert world.describe(seed, depth=drawn.depth) == drawn


def test_depth_is_kept_as_asked(world):
    for depth in world.depths:
        assert world.describe(11, depth=depth).depth == depth


@pytest.mark.parametrize("distance", [-1, 0])
def test_impossible_depth_is_refused(world, distance):
    depth = world.depths[0] - 1 if distance else world.depths[-1] + 1
    with pytest.raises(
        ConfigurationError, match=rf"depth from {world.depths[0]} to {world.depths[-1]} .* got {depth}"
    ):
        world.episode(0, depth=depth)


def test_negative_seed_is_refused(world):
    with pytest.raises(ConfigurationError, match="seed of 0 or more"):
        world.episode(-1)


def test_true_state_gives_the_true_answer(world):
    for seed in range(40):
        episode = world.describe(seed)
        for step, state in enumerate(episode.states, start=1):
            assert world.counterfactual(seed, step, state) == episode.answer


def test_counterfactual_of_an_episode_is_that_of_its_seed_and_depth(world):
    depth = world.depths[1]
    episode = world.describe(9, depth=depth)
    for state in itertools.islice(world.state_names, 40):
        by_seed = world.counterfactual(9, 1, state, depth=depth)
        assert world.counterfactual(episode, 1, state) == by_seed


def test_counterfactual_at_a_state_that_cannot_be_is_refused(world):
    with pytest.raises(ConfigurationError, match="Expected a state"):
        world.counterfactual(0, 1, "purgatory")
    with pytest.raises(ConfigurationError, match=f"from 1 to {world.num_steps}"):
        world.counterfactual(0, world.num_steps + 1, next(iter(world.state_names)))


def test_worlds_draw_differently_from_one_seed():
    clips = [make_world(name).episode(5).clip for name in WORLD_NAMES]
    assert len({hashlib.sha256(clip.tobytes()).hexdigest() for clip in clips}) == len(clips)


def test_no_pixel_tells_the_time():
    """Two idle steps look the same wherever they are: no clock, which longer videos would break."""
    episode = make_world("shuffle").episode(0, depth=0)
    assert all(np.array_equal(episode.clip[2], frame) for frame in episode.clip[3:])


def test_unknown_world_and_knob_are_refused_with_the_known_ones():
    with pytest.raises(ConfigurationError, match="shuffle, bounce, order"):
        make_world("chess")
    with pytest.raises(ConfigurationError, match=r"num_cups, num_steps, .* got num_balls"):
        make_world("shuffle", num_balls=2)


@pytest.mark.parametrize(
    ("name", "knobs"),
    [
        ("shuffle", {"num_cups": 6}),
        ("shuffle", {"num_steps": 4}),
        ("shuffle", {"min_swaps": 5, "max_swaps": 4}),
        ("shuffle", {"num_steps": 21}),
        ("bounce", {"num_deflectors": 10}),
        ("bounce", {"max_steps": 7}),
        ("order", {"num_shapes": 7}),
        ("order", {"num_steps": 4}),
        ("lattice", {"num_rows": 5}),
        ("lattice", {"num_columns": 2}),
        ("lattice", {"num_columns": 6}),
        ("lattice", {"tile_px": 6}),
        ("lattice", {"max_operations": 7}),
    ],
)
def test_knob_out_of_its_range_is_refused(name, knobs):
    with pytest.raises(ConfigurationError, match="Expected .* from"):
        make_world(name, **knobs)


@pytest.mark.parametrize("name", WORLD_NAMES)
def test_registry_has_the_name_that_a_world_gives_itself(name):
    assert type(make_world(name)).name == name


def test_names_of_the_worlds_need_no_package_that_draws():
    code = "import sys, storm_command\nfrom storm_hf.worlds import WORLD_NAMES\nprint({'numpy', 'torch', 'av'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
