import json

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
        ({"sources": {}}, "either sources or a world or films"),
        ({"films": {"splits": {"train": {"folder": "films", "count": 1}}}}, "and one of them only"),
        ({"sources": {}, "films": {"splits": {"test": {"folder": "f", "count": 1}}}}, "a split called train"),
        ({"sources": {"test": [{"path": "t.jsonl"}]}}, "a split called train"),
        (
            {"sources": {"train": "t.jsonl"}},
            "a mapping from text to a list of values, each a mapping with path, got .*t.jsonl",
        ),
        ({"sources": {"train": ["t.jsonl"]}}, "Expected a source as a mapping but got 't.jsonl'"),
        (
            {"sources": [{"path": "t.jsonl"}]},
            "a mapping from text to a list of values, each a mapping with path, got ",
        ),
        ({"speed": 3}, "got speed"),
        ({"speed": 3, "encoder": None}, "got speed"),
        ({"world": "shuffle", "splits": {}}, "below `world`, and add `generator: {simulator: {}}`"),
        (
            {"encoder": {"model": "m", "dtype": "int4"}},
            "In `encoder`: `dtype` must be one of float32, bfloat16, float16, got 'int4'",
        ),
        ({"encoder": {}}, "Expected `encoder` with model, which is missing"),
        ({"embed": "link"}, "In the recipe: `embed` must be one of reference, copy, got 'link'"),
        ({"frame_size": [27, 28]}, "even height"),
        ({"frame_size": [28]}, r"a list of 2 values, each a whole number, got \(28,\)"),
        ({"keep_thoughts": "no"}, "`keep_thoughts` must be true or false, got 'no'"),
        ({"rows_per_shard": 0}, "`rows_per_shard` must be a whole number of 1 or more, got 0"),
        ({"reading": {"timeout_seconds": 0}}, "`timeout_seconds` must be a number above 0, got 0"),
        ({"reading": {"limits": {"max_packets": 0}}}, "`max_packets` must be a whole number of 1 or more, got 0"),
        (
            {"reading": {"limits": {"max_packets": "many"}}},
            "`max_packets` must be a whole number of 1 or more, got 'many'",
        ),
        (
            {"targets": {"num_latents": "four"}},
            "In `targets`: `num_latents` must be a whole number of 1 or more, got 'four'",
        ),
        ({"targets": {"num_latents": 4, "rank": "full"}}, "`rank` must be a whole number of 1 or more or one of auto"),
        (
            {"targets": {"num_latents": 4, "pooling": "mean"}},
            "`pooling` must be one of temporal, sequence, got 'mean'",
        ),
        ({"reading": {"limits": {"speed": 1}}}, "got speed"),
    ],
)
def test_mistake_in_a_recipe_is_named(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        ThoughtsRecipe.from_dict({**CONTENT, **changes})


def test_encoder_that_is_no_mapping_is_refused_also_where_another_model_is_given(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps({**CONTENT, "encoder": "some/model"}))
    with pytest.raises(ConfigurationError, match="Expected `encoder` as a mapping but got 'some/model'"):
        ThoughtsRecipe.read(path, encoder_model="another/model")


def test_file_that_holds_no_recipe_is_named(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("output_dir: [")
    with pytest.raises(ConfigurationError, match="Expected YAML in .*recipe.yaml"):
        ThoughtsRecipe.read(path)
