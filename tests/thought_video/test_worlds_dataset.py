from dataclasses import replace

import numpy as np
import pytest

from storm_hf.annotations.record import Annotation
from storm_hf.errors import ConfigurationError
from storm_hf.evaluation.batch import read_outcome
from storm_hf.thought_video import (
    AskedExample,
    SimulatorGenerator,
    WorldExample,
    WorldRecipe,
    WorldSplit,
    render_world,
)


RECIPE = WorldRecipe.from_dict(
    {
        "world": "shuffle",
        "knobs": {"num_steps": 3, "min_swaps": 1, "max_swaps": 3},
        "splits": {
            "train": {"count": 3},
            "test": {"depths": {0: 1, 3: 2}},
            "longer": {"count": 1, "knobs": {"num_steps": 5, "max_swaps": 5}},
        },
        "targets": {"for": "others"},
    }
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("world")


@pytest.fixture(scope="module")
def examples(folder):
    return render_world(RECIPE, folder)


def test_every_split_has_the_episodes_asked_for(examples):
    assert {split: len(rows) for split, rows in examples.items()} == {"train": 3, "test": 3, "longer": 1}
    assert [example.depth for example in examples["test"]] == [0, 3, 3]
    assert RECIPE.num_episodes == 7


def test_splits_share_no_seed(examples):
    seeds = [example.thought.seed for rows in examples.values() for example in rows]
    assert len(set(seeds)) == len(seeds)


def test_knobs_of_a_split_take_the_place_of_the_recipe_s(examples):
    assert len(examples["train"][0].states) == 3
    assert len(examples["longer"][0].states) == 5


def test_videos_are_real_files_that_show_a_frame_pair_per_step(examples):
    example = examples["longer"][0]
    assert example.video.is_file()
    assert len(example.thought.read()) == 2 * len(example.states)


def test_share_of_open_questions_is_drawn_by_the_seed_alone(tmp_path):
    recipe = WorldRecipe.from_dict({"world": "shuffle", "splits": {"train": {"count": 40, "open_share": 0.5}}})
    examples = render_world(recipe, tmp_path)["train"]
    split = recipe.splits["train"]
    assert [example.options == () for example in examples] == [split.is_open(one.thought.seed) for one in examples]
    assert {example.options for example in examples} == {(), recipe.world_of("train").options}
    assert all(example.answer in recipe.world_of("train").options for example in examples)


@pytest.fixture(scope="module")
def asked(folder):
    """The episodes of `examples`, asked in all wordings; their videos are rendered once."""
    wordings = {"train": "trained", "test": "held_out"}
    splits = {name: replace(split, wordings=wordings.get(name, "usual")) for name, split in RECIPE.splits.items()}
    return render_world(replace(RECIPE, splits=splits), folder)


def test_examples_in_other_wordings_carry_the_complete_question_and_reply(examples, asked):
    world = RECIPE.world_of("train")
    for split, wordings in (("train", world.trained_wordings), ("test", world.held_out_wordings)):
        for usual, example in zip(examples[split], asked[split], strict=True):
            assert isinstance(example, AskedExample)
            assert example.question.startswith(wordings)
            assert example.options == ()
            assert (example.usual_question, example.outcome) == (usual.question, usual.answer)
            assert sorted(example.choices) == sorted(usual.options)
            assert example.spoken_chain != example.chain_of_thought == usual.chain_of_thought
            assert read_outcome(example.answer, example.choices, example.choice_style) == usual.answer


def test_other_wordings_change_neither_the_videos_nor_the_states(examples, asked):
    for split, usual in examples.items():
        assert [(one.id, one.video, one.states) for one in usual] == [
            (one.id, one.video, one.states) for one in asked[split]
        ]


def test_split_in_the_usual_wording_has_the_columns_of_the_others_beside_it(examples, asked):
    (usual,), (example,) = examples["longer"], asked["longer"]
    assert type(usual) is WorldExample
    assert (example.question, example.options, example.answer) == (usual.question, usual.options, usual.answer)
    assert (example.choices, example.outcome) == (usual.options, usual.answer)


def test_generator_draws_what_is_asked_in_other_wordings(asked):
    example, world = asked["test"][0], RECIPE.world_of("test")
    drawn = SimulatorGenerator(world, wordings="held_out").generate(annotation_of(example), seed=0)
    assert drawn.seed == example.thought.seed
    assert SimulatorGenerator(world).generate(annotation_of(example), seed=0).kind == "other episode"


def test_wordings_of_a_recipe_are_those_that_exist():
    with pytest.raises(ConfigurationError, match="wordings"):
        WorldRecipe.from_dict({"world": "shuffle", "splits": {"train": {"count": 1, "wordings": "all"}}})


def test_share_of_open_questions_is_refused_with_other_wordings():
    with pytest.raises(ConfigurationError, match="no open_share with the wordings trained"):
        WorldSplit(count=1, open_share=0.5, wordings="trained")


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_share_of_open_questions_is_as_asked(share):
    split = WorldSplit(count=4000, open_share=share)
    assert np.mean([split.is_open(seed) for seed in range(4000)]) == pytest.approx(share, abs=0.02)


def test_canvas_of_a_recipe_is_the_size_of_its_frames(tmp_path):
    recipe = WorldRecipe.from_dict({"world": "shuffle", "splits": {"train": {"count": 1}}, "canvas": [48, 64]})
    (example,) = render_world(recipe, tmp_path)["train"]
    assert example.thought.read().shape[1:3] == (4 * 48, 4 * 64)


def test_rendering_again_keeps_every_file(folder, examples):
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.mp4")}
    again = render_world(RECIPE, folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.mp4")} == times
    assert [example.id for example in again["train"]] == [example.id for example in examples["train"]]


def annotation_of(example, **others):
    names = ("id", "video", "question", "options", "answer")
    return Annotation(**{**{name: getattr(example, name) for name in names}, **others})


@pytest.mark.parametrize("split", ["train", "test", "longer"])
def test_generator_draws_what_the_file_shows(examples, split):
    """The id says the seed and the depth, whatever seed the caller draws."""
    example = examples[split][-1]
    drawn = SimulatorGenerator(RECIPE.world_of(split)).generate(annotation_of(example), prompt="", seed=12345)
    error = np.abs(drawn.read().astype(int) - example.thought.read()).mean()
    assert error < 3
    assert (drawn.source, drawn.fps, drawn.seed) == ("simulator", example.thought.fps, example.thought.seed)


def test_generator_takes_the_seed_where_the_id_is_another(examples):
    example = examples["train"][0]
    generator = SimulatorGenerator(RECIPE.world_of("train"))
    drawn = generator.generate(annotation_of(example, id="mine"), prompt="", seed=example.thought.seed)
    assert drawn.seed == example.thought.seed


def test_generator_rejects_a_question_of_another_episode(examples):
    example = examples["train"][0]
    wrong = next(word for word in example.options if word != example.answer)
    rejected = SimulatorGenerator(RECIPE.world_of("train")).generate(annotation_of(example, answer=wrong), seed=0)
    assert rejected.kind == "other episode"
    assert repr(wrong) in rejected.reason


@pytest.mark.parametrize("split", [{}, {"count": 1, "depths": {0: 1}}])
def test_split_needs_a_count_or_depths(split):
    with pytest.raises(ConfigurationError, match="either a count or depths"):
        WorldSplit(**split)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_share_of_open_questions_is_a_share(share):
    with pytest.raises(ConfigurationError, match="open_share from 0 to 1"):
        WorldSplit(count=1, open_share=share)


def test_recipe_without_splits_is_refused():
    with pytest.raises(ConfigurationError, match="splits is missing"):
        WorldRecipe.from_dict({"world": "shuffle"})
