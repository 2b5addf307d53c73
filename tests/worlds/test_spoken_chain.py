"""Reasoning in sentences: exact in every step, one sentence a step, and no obstacle to reading the answer behind it."""

import re
from dataclasses import asdict, replace
from functools import cache

import pytest
from datasets import Dataset
from tests.worlds.conftest import KNOBS

from storm_hf.curriculum.reasoning import replace_reasoning, split_steps
from storm_hf.evaluation.batch import read_outcome, read_reply
from storm_hf.inputs.wording import LETTERS, NUMBER_WORDS, ORDINAL_WORDS
from storm_hf.worlds import ask, make_world
from storm_hf.worlds.bounce import FIELDS
from storm_hf.worlds.lattice import OPERATIONS


NUM_SEEDS = 200
FIELD = rf"\b({'|'.join(sorted(FIELDS, key=len, reverse=True))})\b"
HEADING = r"(?:going|turned) (right|down|left|up)\b"
SIGNS = dict(
    zip(
        ("one tile to the left", "one tile down", "left neighbour was on", "upper neighbour was on"),
        OPERATIONS,
        strict=True,
    )
)


@cache
def chains_of(world):
    """Episodes of a world with the sentences of their chains."""
    episodes = [world.describe(seed) for seed in range(NUM_SEEDS)]
    return [(episode, split_steps(world.say_chain(episode, episode.seed))) for episode in episodes]


def called(name):
    """The worlds of a name, in its standard form and with other knobs."""
    return [make_world(name, **knobs) for key, knobs in KNOBS.items() if key.partition("-")[0] == name]


def named_state(world, sentence):
    """Read the state after a step off its sentence: a start stands before it, and what leads to the answer behind it."""
    start, _, rest = sentence.partition("; ")
    step = rest if re.match(r"(The ball starts|The rows start|At first)", start) else start
    step = step.partition("; ")[0]
    if world.name == "bounce":
        return f"{re.findall(FIELD, step)[-1]}-{re.findall(HEADING, step)[-1]}"
    if world.name == "lattice":
        return "".join(re.findall(r"[01]+", step))
    return next(word for word in reversed(re.findall(r"\w+", step)) if word in world.state_names)


def test_every_sentence_names_the_state_after_its_step(world):
    for episode, sentences in chains_of(world):
        assert [named_state(world, sentence) for sentence in sentences] == list(episode.states)


def test_chain_has_a_sentence_for_each_step_and_begins_each_with_a_capital(world):
    for _, sentences in chains_of(world):
        assert len(sentences) == world.num_steps
        assert all(re.fullmatch(r"[A-Z][^.!?\n]+\.", sentence) for sentence in sentences)


def test_every_sentence_counts_its_step(world):
    for _, sentences in chains_of(world):
        steps = sentences[: getattr(world, "num_shapes", world.num_steps)]
        for step, sentence in enumerate(steps, start=1):
            assert {NUMBER_WORDS[step], *ORDINAL_WORDS[step : step + 1]} & set(re.findall(r"\w+", sentence.lower()))


@pytest.mark.parametrize("world", called("shuffle"), ids=repr)
def test_shuffle_names_the_cups_that_swap_and_the_ball_before(world):
    for episode, sentences in chains_of(world):
        swaps = re.findall(r"swap (\w+) (\w+)", episode.chain_of_thought)
        for sentence, swap in zip(sentences, swaps, strict=True):
            step = sentence.rpartition("; ")[2]
            colours = [word for word in re.findall(r"\w+", step) if word in world.options]
            assert tuple(colours[:2]) == (tuple(colours[:1]) if swap == ("none", "none") else swap)
        start = next(word for word in re.findall(r"\w+", sentences[0]) if word in world.options)
        assert episode.clip_caption.startswith(f"zero ball {start} .")


@pytest.mark.parametrize("world", called("bounce"), ids=repr)
def test_bounce_moves_as_the_ball_does_and_names_wall_and_bar(world):
    for episode, sentences in chains_of(world):
        said_start, _, first = sentences[0].partition("; ")
        field, heading = re.search(FIELD, said_start)[1], re.search(r"go(?:ing|es) (\w+)", said_start)[1]
        assert episode.clip_caption.startswith(f"ball {field} going {heading} . board")
        board = episode.clip_caption.partition(" . board ")[2].split()
        states = [f"{field}-{heading}", *episode.states[: episode.depth]]
        for before, after, step in zip(states, states[1:], [first, *sentences[1:]], strict=False):
            way = re.search(r"(?i:mov(?:es|ing)|takes the ball|takes it) (right|down|left|up)", step)[1]
            assert way == way_between(before, after)
            assert ("wall" in step) == (way != before.split("-")[1])
            bar = {"empty": [], "slash": ["rising"], "back": ["falling"]}[board[FIELDS.index(after.split("-")[0])]]
            assert re.findall(r"(rising|falling) bar", step) == bar


def way_between(before, after):
    (row, column), (next_row, next_column) = (divmod(FIELDS.index(one.split("-")[0]), 3) for one in (before, after))
    ways = {(0, 1): "right", (1, 0): "down", (0, -1): "left", (-1, 0): "up"}
    return ways[next_row - row, next_column - column]


@pytest.mark.parametrize("world", called("lattice"), ids=repr)
def test_lattice_names_each_operation_and_the_pattern_before(world):
    for episode, sentences in chains_of(world):
        signs = re.findall(r"\w+ (\w+) ,", episode.chain_of_thought)
        for sentence, sign in zip(sentences, signs, strict=True):
            assert [SIGNS[said] for said in SIGNS if said in sentence] == [sign] * (sign != "none")
        start = "".join(re.findall(r"[01]+", sentences[0].partition("; ")[0]))
        assert world._start(world._plan(episode.seed, episode.depth)) == start


def test_last_sentence_leads_to_the_answer(world):
    for episode, sentences in chains_of(world):
        end = sentences[-1].rpartition("; ")[2]
        named = [word for word in re.findall(r"\w+", end) if word in world.options]
        assert named[-1] == episode.answer


def test_seed_alone_decides_how_a_chain_is_said(standard_world):
    episode = standard_world.describe(3)
    said = [standard_world.say_chain(episode, seed) for seed in range(40)]
    assert said == [standard_world.say_chain(episode, seed) for seed in range(40)]
    assert len(set(said)) > 20
    by_step = zip(*map(split_steps, said), strict=True)
    assert all(2 <= len(set(ways)) <= 12 for ways in by_step)


@pytest.mark.parametrize("wordings", ["usual", "trained", "held_out"])
def test_answer_is_read_behind_the_chain_or_what_is_left_of_it(standard_world, wordings):
    episodes = [episode for episode, _ in chains_of(standard_world)[:100]]
    asked = [asdict(ask(standard_world, episode, episode.seed, wordings)) for episode in episodes]
    rows = Dataset.from_list(asked)
    for num_replaced in (0, standard_world.num_steps - 1):
        for row in replace_reasoning(rows, "spoken_chain", num_replaced):
            assert read_reply(row["answer"], row) == row["outcome"]


def test_another_answer_than_that_of_the_chain_is_read_as_said(standard_world):
    for episode, _ in chains_of(standard_world)[:40]:
        asked = ask(standard_world, episode, episode.seed, "trained")
        choices, other = asked.choices, next(word for word in asked.choices if word != asked.outcome)
        letter = LETTERS[choices.index(other)]
        sentences = [standard_world.say(one, episode, answer=other) for one in standard_world.answer_sentences]
        for reply in (other, *sentences):
            assert read_outcome(f"{asked.spoken_chain} {reply}", choices, "none") == other
        for reply in (letter, f"{letter}. {other}", f"{letter}) {other}", f"({letter}) {other}", *sentences):
            assert read_outcome(f"{asked.spoken_chain} {reply}", choices, "letters") == other


def test_chain_is_the_same_in_all_wordings(standard_world):
    episode = standard_world.describe(5)
    asked = [ask(standard_world, episode, 5, wordings) for wordings in ("usual", "trained", "held_out")]
    assert {one.spoken_chain for one in asked} == {standard_world.say_chain(episode, 5)}
    assert replace(asked[0], spoken_chain="") == replace(ask(standard_world, episode, 9, "usual"), spoken_chain="")


def test_chain_of_a_seed_is_the_same_in_every_version():
    world = make_world("shuffle")
    assert world.say_chain(world.describe(0), 0) == (
        "The ball starts on yellow; step one swaps the blue cup with the yellow one, carrying the ball to blue. In step two, all cups "
        "stay where they are, so the ball stays on blue. In step three, red and yellow trade places, which leaves the ball on blue. "
        "Step four swaps the red cup with the blue one, carrying the ball to red. Step five changes nothing, and the ball remains on "
        "red. In step six, all cups stay where they are, so the ball stays on red, its final place."
    )
