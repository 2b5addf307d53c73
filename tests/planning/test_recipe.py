import pytest

from storm_hf.errors import ConfigurationError
from storm_hf.planning.recipe import read_recipe


KNOWN = "Qwen/Qwen2.5-VL-7B-Instruct"


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_recipe_knows_its_defaults(write):
    recipe = read_recipe(write("my_align.yaml", f"model_name_or_path: {KNOWN}"))
    assert (recipe.stage, recipe.backbone, recipe.num_frames) == ("align", KNOWN, 32)
    assert (recipe["align_weight"], recipe["gradient_checkpointing"], recipe["num_latents"]) == (3.0, True, None)
    assert recipe.uses_bf16


def test_stage_is_read_off_the_arguments_where_the_name_does_not_say(write):
    assert read_recipe(write("one.yaml", f"model_name_or_path: {KNOWN}\nalign_weight: 1.0")).stage == "align"
    assert read_recipe(write("two.yaml", f"model_name_or_path: {KNOWN}\nlearning_rate: 1.0")).stage == "answer"
    assert read_recipe(write("six.yaml", f"model_name_or_path: {KNOWN}\nnum_generations: 4")).stage == "grpo"
    assert read_recipe(write("my_grpo.yaml", f"model_name_or_path: {KNOWN}")).stage == "grpo"


def test_stage_ii_inherits_what_the_checkpoint_of_stage_i_brings(write):
    write(
        "my_align.yaml",
        f"model_name_or_path: {KNOWN}\noutput_dir: runs/one\nnum_latents: 5\nlatent_projector: identity\nuse_peft: true",
    )
    recipe = read_recipe(write("my_answer.yaml", "model_name_or_path: runs/one"))
    assert (recipe.backbone, recipe["num_latents"], recipe["latent_projector"]) == (KNOWN, 5, "identity")
    assert not recipe["use_peft"]


def test_what_is_no_recipe_beside_one_is_passed_over(write):
    for name, text in {"a.yaml": "{broken: [", "b.yaml": "just words"}.items():
        write(name, text)
    write("my_align.yaml", f"model_name_or_path: {KNOWN}\noutput_dir: runs/one")
    assert read_recipe(write("my_answer.yaml", "model_name_or_path: runs/one")).backbone == KNOWN


def test_stages_that_start_from_each_other_end(write):
    write("my_align.yaml", "model_name_or_path: runs/two\noutput_dir: runs/one")
    recipe = read_recipe(write("my_answer.yaml", "model_name_or_path: runs/one\noutput_dir: runs/two"))
    assert recipe.backbone.startswith("runs/")


def test_only_a_rollout_passes_in_pieces(write):
    head = f"model_name_or_path: {KNOWN}\n"
    assert not read_recipe(write("a_align.yaml", head)).is_rollout
    assert read_recipe(write("b_align.yaml", head + "forcing: scheduled")).is_rollout
    assert read_recipe(write("c_answer.yaml", head + "truncate_steps: 2")).is_rollout
    assert not read_recipe(write("d_answer.yaml", head + "num_latents: 0")).is_rollout
    assert read_recipe(write("e_grpo.yaml", head)).is_rollout
    assert not read_recipe(write("f_grpo.yaml", head + "estimator: score")).is_rollout


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model_name_or_path: x\nlearning_rte: 1.0", "`learning_rte`. Did you mean `learning_rate`?"),
        ("model_name_or_path: x\nnum_latents: eight", "whole number from 0 up for `num_latents`"),
        ("model_name_or_path: x\nnum_frames: 0", "whole number from 1 up for `num_frames`"),
        ("learning_rate: 1.0", "`model_name_or_path`"),
        ("just words", "a mapping of arguments"),
        ("{broken: [", "Expected YAML"),
        ("stages: []", "several stages"),
        ("sources: {train: [{path: a.jsonl}]}", "recipe of a data set, not of a trainer"),
        ("world: shuffle\nsplits: {train: {count: 1}}", "recipe of a data set, not of a trainer"),
    ],
)
def test_what_is_no_recipe_is_told(write, text, says):
    with pytest.raises(ConfigurationError, match=says.replace("?", r"\?")):
        read_recipe(write("my_align.yaml", text))


@pytest.mark.parametrize("text", ["align_wieght: 1.0", "align_weight: 1.0\nlearning_rate: 1.0\nforcng: teacher"])
def test_misspelt_key_is_refused_by_name_before_a_stage_is_guessed(write, text):
    near = {"align_wieght": "align_weight", "forcng": "forcing"}
    given = text.rpartition("\n")[2].partition(":")[0]
    with pytest.raises(
        ConfigurationError, match=rf"`trainers/align.py` or .*got `{given}`. Did you mean `{near[given]}`\?"
    ):
        read_recipe(write("mine.yaml", f"model_name_or_path: x\n{text}"))
