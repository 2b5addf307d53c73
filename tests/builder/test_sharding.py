"""The first step of a build of a world tells its episodes without drawing them."""

from pathlib import Path

import pytest

from storm_hf.builder import ThoughtsRecipe
from storm_hf.builder.progress import ANNOTATIONS
from storm_hf.builder.row_steps import read_records
from storm_hf.builder.sharding import plan_parameters, write_plan
from storm_hf.pipeline.workspace import Workspace
from storm_hf.thought_video import WorldRecipe, render_world


RECIPES = Path(__file__).parents[2] / "datasets_builders" / "recipes"


def recipe_of(world):
    recipe = {"output_dir": "data", "world": world, "generator": {"simulator": {}}, "encoder": {"model": "base"}}
    return ThoughtsRecipe.from_dict({**recipe, "targets": {"num_latents": 6}})


def plan(world, folder):
    write_plan(recipe_of(world), Workspace(folder))
    return list(read_records(folder / ANNOTATIONS / "train-00000.jsonl", folder))


@pytest.mark.parametrize(("share", "forms"), [(0.0, {False}), (0.5, {False, True}), (1.0, {True})])
def test_the_same_questions_are_open_as_where_the_world_is_rendered(share, forms, tmp_path):
    world = {"world": "shuffle", "splits": {"train": {"count": 8, "open_share": share}}}
    rows = plan(world, tmp_path)
    rendered = render_world(WorldRecipe.from_dict(world), tmp_path / "rendered")["train"]
    assert [row.annotation.options for row in rows] == [example.options for example in rendered]
    assert {row.annotation.options == () for row in rows} == forms


def test_recipes_of_worlds_ask_half_of_their_training_questions_without_options():
    for world in ("shuffle", "bounce", "order"):
        recipe = ThoughtsRecipe.read(RECIPES / f"{world}_tiny.yaml")
        shares = {name: split.open_share for name, split in recipe.world.splits.items()}
        assert shares.pop("train") == 0.5
        assert set(shares.values()) == {0.0}


def test_rows_in_other_wordings_are_those_of_the_rendered_world(tmp_path):
    world = {"world": "shuffle", "splits": {"train": {"count": 4, "wordings": "trained"}}}
    rendered = render_world(WorldRecipe.from_dict(world), tmp_path / "rendered")["train"]
    for row, example in zip(plan(world, tmp_path), rendered, strict=True):
        assert (row.annotation.question, row.annotation.answer) == (example.question, example.answer)
        assert row.annotation.options == example.options == ()
        assert {name: row.words[name] for name in ("usual_question", "choice_style", "outcome", "spoken_chain")} == {
            "usual_question": example.usual_question,
            "choice_style": example.choice_style,
            "outcome": example.outcome,
            "spoken_chain": example.spoken_chain,
        }
        assert row.words["choices"] == list(example.choices)


def test_build_in_the_usual_wording_has_the_parameters_of_one_before_there_were_others():
    wordings = {"train": {"count": 1}, "test": {"count": 1, "wordings": "held_out"}}
    splits = plan_parameters(recipe_of({"world": "shuffle", "splits": wordings}))["world"]["splits"]
    assert "wordings" not in splits["train"]
    assert splits["test"]["wordings"] == "held_out"
