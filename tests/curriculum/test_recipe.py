"""Arguments of each stage of a run's recipe, by their last source."""

import pytest
import yaml

from storm_hf.curriculum.recipe import RunRecipe
from storm_hf.errors import ConfigurationError


COMMON = {"model_name_or_path": "runs/base", "output_dir": "runs/run", "dataset_name": "data/shuffle"}


def read(text, **overrides):
    return RunRecipe.from_dict({**COMMON, **yaml.safe_load(text)}, overrides=overrides)


def test_stages_are_named_by_number_and_kind():
    recipe = read("stages: two_stages")
    assert [run.name for run in recipe.stages] == ["1-align", "2-answer"]
    assert (recipe.model_name_or_path, str(recipe.output_dir)) == ("runs/base", "runs/run")
    assert [run.name for run in read("stages: {coconut: {num_steps: 9}}").stages][-1] == "10-answer"
    assert [run.name for run in read("stages: {coconut: {num_steps: 9}}").stages][0] == "01-answer"


def test_places_are_no_arguments_of_a_stage():
    for run in read("stages: two_stages").stages:
        assert run.arguments == {"dataset_name": "data/shuffle"}


def test_more_special_one_wins(tmp_path):
    names = ("seed", "max_steps", "save_steps", "logging_steps", "warmup_steps")
    script = {**dict.fromkeys(names, 1), "output_dir": "elsewhere", "model_name_or_path": "other"}
    (tmp_path / "align.yaml").write_text(yaml.safe_dump(script))
    run = {
        **COMMON,
        **dict.fromkeys(names[1:], 2),
        "align": {"config": "align.yaml", **dict.fromkeys(names[2:], 3)},
        "stages": [{"kind": "align", **dict.fromkeys(names[3:], 4)}, {"kind": "answer"}],
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    recipe = RunRecipe.read(tmp_path / "run.yaml", {"warmup_steps": 5})
    assert [recipe.stages[0].arguments[name] for name in names] == [1, 2, 3, 4, 5]
    assert recipe.stages[0].arguments.keys() == {*names, "dataset_name"}
    assert recipe.stages[1].arguments["logging_steps"] == 2
    assert recipe.model_name_or_path == "runs/base"


def test_stage_may_name_a_file_of_its_own(tmp_path):
    (tmp_path / "kind.yaml").write_text("seed: 1")
    (tmp_path / "stage.yaml").write_text("seed: 2")
    run = {
        **COMMON,
        "align": {"config": "kind.yaml"},
        "stages": [{"kind": "align"}, {"kind": "align", "config": "stage.yaml"}],
    }
    recipe = RunRecipe.from_dict(run, tmp_path)
    assert [run.arguments["seed"] for run in recipe.stages] == [1, 2]


def test_first_stage_may_say_what_the_run_starts_from(tmp_path):
    (tmp_path / "align.yaml").write_text("model_name_or_path: runs/tiny/base")
    content = {"output_dir": "runs/run", "align": {"config": "align.yaml"}, "stages": "two_stages"}
    assert RunRecipe.from_dict(content, tmp_path).model_name_or_path == "runs/tiny/base"


def test_reinforcement_alone_keeps_the_directions_that_its_own_recipe_names(tmp_path):
    (tmp_path / "grpo.yaml").write_text("{latent_subspace: runs/tiny/align, rewards: [answer_format]}")

    def of_reinforcement(*kinds):
        content = {**COMMON, "grpo": {"config": "grpo.yaml"}, "stages": [{"kind": kind} for kind in (*kinds, "grpo")]}
        return RunRecipe.from_dict(content, tmp_path).stages[-1].arguments

    assert of_reinforcement()["latent_subspace"] == of_reinforcement("answer")["latent_subspace"] == "runs/tiny/align"
    after_stage_one = of_reinforcement("align", "answer")
    assert after_stage_one["rewards"] == ["answer_format"]
    assert "latent_subspace" not in after_stage_one


def test_every_stage_gets_the_latents_of_the_plan():
    recipe = read("{num_latents: 6, stages: {growing: {num_latents: [2, 4]}}}")
    assert [run.arguments["num_latents"] for run in recipe.stages] == [2, 4, 4]
    recipe = read(
        "{num_latents: 6, stages: [{kind: base, freeze_vision: true}, {kind: align}, {kind: answer, num_latents: 3}]}"
    )
    assert [run.arguments["num_latents"] for run in recipe.stages] == [0, 6, 3]


def test_command_line_replaces_places_too():
    recipe = read("stages: two_stages", output_dir="mine", model_name_or_path="base", seed=7)
    assert (str(recipe.output_dir), recipe.model_name_or_path) == ("mine", "base")
    assert [run.arguments["seed"] for run in recipe.stages] == [7, 7]


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("{stages: two_stages, output_dir: null}", {}, "A run needs `model_name_or_path`"),
        ("{stages: two_stages, model_name_or_path: null}", {}, "A run needs `model_name_or_path`"),
        ("{stages: two_stages, forcing: teacher}", {}, "trainers/answer.py does not know forcing"),
        ("{stages: two_stages, config: x.yaml}", {}, "trainers/align.py does not know config"),
        ("{stages: [{kind: grpo}], grpo: {forcing: teacher}}", {}, "trainers/grpo.py does not know forcing"),
        ("stages: [{kind: grpo, num_latents: 0}]", {}, "kind grpo needs `num_latents` of 1 or more, got 0"),
        ("{stages: two_stages, align: {num_replaced: 1}}", {}, "trainers/align.py does not know num_replaced"),
        ("{stages: two_stages, align: 3}", {}, "`align` must be a mapping of arguments for all its stages, got 3"),
        ("{stages: two_stages, answer: {output_dir: x}}", {}, "`answer` must not have output_dir"),
        ("stages: [{kind: align, model_name_or_path: x}]", {}, "Stage 1 must not have model_name_or_path"),
        ("{stages: two_stages, resume_from_checkpoint: x}", {}, "The recipe must not have resume_from_checkpoint"),
        ("stages: two_stages", {"resume_from_checkpoint": False}, "The command line must not have resume_from_chec"),
        ("stages: two_stages", {"stages": "x"}, "stages cannot be given on the command line"),
        ("stages: {growing: {num_latents: [2]}}", {"num_latents": 3}, "their own `num_latents`, so that 3 for all"),
        ("{stages: two_stages, save_strategy: best}", {}, "`save_strategy` must be steps or epoch, got best"),
        ("{stages: two_stages, save_strategy: 'no'}", {}, "`save_strategy` must be steps or epoch, got no"),
        ("{stages: {coconut: {num_steps: 1}}, question_style: letters}", {}, "which `question_style: letters` cannot"),
        ("stages: [{kind: base}, {kind: align}]", {}, "A base stage trains the vision tower"),
        (
            "{stages: two_stages, align: {config: nowhere.yaml}}",
            {},
            "Expected a recipe at nowhere.yaml, but it cannot be",
        ),
    ],
)
def test_recipe_that_cannot_be_run_is_refused(text, overrides, message):
    with pytest.raises(ConfigurationError, match=message):
        read(text, **overrides)
