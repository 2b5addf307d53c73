"""The ball on the board: the simulator against one written anew, with coordinates."""

import re

import numpy as np

from storm_hf.worlds import make_world
from storm_hf.worlds.render import CELL_PX, ENLARGEMENT, WHITE


WORLD = make_world("bounce")
FIELDS = ["northwest", "north", "northeast", "west", "centre", "east", "southwest", "south", "southeast"]
VECTORS = {"right": 1 + 0j, "left": -1 + 0j, "up": 1j, "down": -1j}


def position(field):
    index = FIELDS.index(field)
    return complex(index % 3, -(index // 3))


def travel(board, field, direction, num_steps):
    """Follow the ball in the complex plane, up being the imaginary axis."""
    place, way = position(field), VECTORS[direction]
    for _ in range(num_steps):
        if place + way not in map(position, FIELDS):
            way = -way
        place += way
        content = board[[position(name) for name in FIELDS].index(place)]
        if content == "slash":
            way = way.conjugate() * 1j
        elif content == "back":
            way = way.conjugate() * -1j
    heading = next(name for name, vector in VECTORS.items() if vector == way)
    return FIELDS[[position(name) for name in FIELDS].index(place)], heading


def told(episode):
    field, direction, board = re.fullmatch(r"ball (\w+) going (\w+) \. board (.+) \.", episode.clip_caption).groups()
    return board.split(), field, direction


def place_of_ball(frame):
    small = frame[::ENLARGEMENT, ::ENLARGEMENT]
    row, column = np.argwhere((small == WHITE).all(axis=-1)).mean(axis=0).astype(int) // CELL_PX
    return FIELDS[3 * row + column]


def test_caption_followed_by_hand_gives_states_and_answer():
    for seed in range(100):
        episode = WORLD.describe(seed)
        expected = [travel(*told(episode), min(step, episode.depth)) for step in range(1, 7)]
        assert episode.states == tuple(f"{field}-{direction}" for field, direction in expected)
        assert episode.answer == expected[-1][0]


def test_counterfactual_is_what_following_by_hand_gives():
    for seed in range(20):
        episode = WORLD.describe(seed)
        board = told(episode)[0]
        for step in range(1, 7):
            for state in WORLD.state_names:
                steps_left = max(0, episode.depth - step)
                assert WORLD.counterfactual(seed, step, state) == travel(board, *state.split("-"), steps_left)[0]


def test_thought_video_shows_the_ball_where_the_states_say():
    for seed in range(20):
        episode = WORLD.episode(seed)
        assert [place_of_ball(frame) for frame in episode.thought[::2]] == [
            state.split("-")[0] for state in episode.states
        ]
        assert place_of_ball(episode.clip[0]) == told(episode)[1]


def test_question_names_the_steps_in_words():
    assert WORLD.describe(0, depth=5).question == "Where is the ball after five steps?"
    assert WORLD.describe(0, depth=1).question == "Where is the ball after one step?"


def test_answers_are_balanced_at_a_given_depth():
    answers = [WORLD.describe(seed, depth=1).answer for seed in range(1800)]
    counts = np.array([answers.count(field) for field in FIELDS])
    assert (np.abs(counts - 200) < 60).all()
