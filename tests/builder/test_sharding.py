"""The first step of a build of a world tells its episodes without drawing them."""

from pathlib import Path

import pytest

from storm_hf.builder import ThoughtsRecipe
from storm_hf.builder.progress import ANNOTATIONS
from storm_hf.builder.row_steps import read_records
from storm_hf.builder.sharding import write_plan
from storm_hf.pipeline.workspace import Workspace
from storm_hf.thought_video import WorldRecipe, render_world


RECIPES = Path(__file__).parents[2] / "datasets_builders" / "recipes"


@pytest.mark.parametrize(("share", "forms"), [(0.0, {False}), (0.5, {False, True}), (1.0, {True})])
def test_the_same_questions_are_open_as_where_the_world_is_rendered(share, forms, tmp_path):
    world = {"world": "shuffle", "splits": {"train": {"count": 8, "open_share": share}}}
    recipe = {"output_dir": "data", "world": world, "generator": {"simulator": {}}, "encoder": {"model": "base"}}
    write_plan(ThoughtsRecipe.from_dict({**recipe, "targets": {"num_latents": 6}}), Workspace(tmp_path))
    rows = list(read_records(tmp_path / ANNOTATIONS / "train-00000.jsonl", tmp_path))
    rendered = render_world(WorldRecipe.from_dict(world), tmp_path / "rendered")["train"]
    assert [row.annotation.options for row in rows] == [example.options for example in rendered]
    assert {row.annotation.options == () for row in rows} == forms


def test_recipes_of_worlds_ask_half_of_their_training_questions_without_options():
    for world in ("shuffle", "bounce", "order"):
        recipe = ThoughtsRecipe.read(RECIPES / f"{world}_tiny.yaml")
        shares = {name: split.open_share for name, split in recipe.world.splits.items()}
        assert shares.pop("train") == 0.5
        assert set(shares.values()) == {0.0}
