import pytest

from storm_hf.builder import ThoughtsRecipe
from storm_hf.errors import ConfigurationError


CONTENT = {
    "output_dir": "data",
    "sources": {"train": [{"path": "train.jsonl"}]},
    "generator": {"future": {}},
    "encoder": {"model": "some/model"},
    "targets": {"num_latents": 4},
}


def test_recipe_is_read_with_its_changes(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("output_dir: a\nsources: {train: [{path: t.jsonl}]}\ngenerator: {future: {}}\n"
                    "encoder: {model: m, dtype: bfloat16}\ntargets: {num_latents: 4}\n")  # fmt: skip
    recipe = ThoughtsRecipe.read(path, output_dir="b", encoder_model="n", seed=None)
    assert (recipe.output_dir, recipe.encoder.model, recipe.encoder.dtype, recipe.seed) == ("b", "n", "bfloat16", 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sources": {}}, "either sources or a world"),
        ({"sources": {"test": [{"path": "t.jsonl"}]}}, "a split called train"),
        ({"speed": 3}, "got speed"),
        ({"speed": 3, "encoder": None}, "got speed"),
        ({"world": "shuffle", "splits": {}}, "below `world`, and add `generator: {simulator: {}}`"),
        ({"encoder": {"model": "m", "dtype": "int4"}}, "dtype among"),
        ({"encoder": {}}, "missing"),
        ({"embed": "link"}, "reference or copy"),
        ({"frame_size": [27, 28]}, "even height"),
        ({"rows_per_shard": 0}, "1 or more"),
        ({"reading": {"timeout_seconds": 0}}, "timeout_seconds above 0"),
        ({"reading": {"limits": {"max_packets": 0}}}, "max_packets of at least 1"),
        ({"reading": {"limits": {"speed": 1}}}, "got speed"),
    ],
)
def test_mistake_in_a_recipe_is_named(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        ThoughtsRecipe.from_dict({**CONTENT, **changes})
