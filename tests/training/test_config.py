"""Every argument of ours is documented once, has help on the command line, and is checked."""

import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

from storm_hf import StormAlignConfig, StormAnswerConfig, StormGRPOConfig
from storm_hf.errors import ConfigurationError
from storm_hf.settings import argument_help
from storm_hf.training.config import StormTrainingConfig
from storm_hf.training.loading import StormModelConfig


CONFIGS = (StormTrainingConfig, StormAlignConfig, StormAnswerConfig, StormModelConfig)


@pytest.mark.parametrize("config", CONFIGS)
def test_every_argument_is_documented_and_has_help(config):
    own = set(inspect.get_annotations(config))
    documented = set(re.findall(r"^    (\w+) \(`.*\):$", inspect.getdoc(config), flags=re.MULTILINE))
    assert documented == own
    helps = {field.name: field.metadata.get("help") for field in fields(config) if field.name in own}
    assert helps == argument_help(config)
    assert all(helps.values()), helps


def test_help_of_a_script_is_the_docstring(warm_python):
    script = Path(__file__).parents[2] / "trainers" / "align.py"
    shown = " ".join(warm_python.run_script(script, "--help").stdout.split())
    for config in (StormTrainingConfig, StormAlignConfig, StormModelConfig):
        for name, text in argument_help(config).items():
            assert f"--{name}" in shown
            assert text in shown


@pytest.mark.parametrize("config", CONFIGS)
def test_documented_defaults_are_the_real_ones(config):
    own = inspect.get_annotations(config)
    documented = dict(
        re.findall(r"^    (\w+) \(.*defaults to `(.*?)`\):$", inspect.getdoc(config), flags=re.MULTILINE)
    )
    real = {
        field.name: field.default for field in fields(config) if field.name in own and field.default not in (None, "")
    }
    assert {name: eval(text) for name, text in documented.items()} == real


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_latents": -1}, "`num_latents` must be a whole number of 0 or more, got -1"),
        ({"question_style": "prose"}, "`question_style` must be one of words, letters, none, got 'prose'"),
        ({"freeze_vision": "no"}, "`freeze_vision` must be true or false, got 'no'"),
        ({"truncate_steps": "two"}, "`truncate_steps` must be a whole number, got 'two'"),
    ],
)
@pytest.mark.parametrize("config", [StormAlignConfig, StormAnswerConfig])
def test_argument_of_both_stages_out_of_range_is_refused(config, arguments, message, tmp_path):
    with pytest.raises(ConfigurationError, match=message):
        config(str(tmp_path), **arguments)


def test_checkpointing_is_never_reentrant(tmp_path):
    config = StormAnswerConfig(str(tmp_path), activation_checkpointing_kwargs={"use_reentrant": True})
    assert config.activation_checkpointing_kwargs == {"use_reentrant": False}
    assert config.gradient_checkpointing_kwargs == {"use_reentrant": False}


def test_checkpointing_arguments_of_a_command_line_are_read(tmp_path):
    config = StormAnswerConfig(str(tmp_path), activation_checkpointing_kwargs='{"preserve_rng_state": false}')
    assert config.activation_checkpointing_kwargs == {"preserve_rng_state": False, "use_reentrant": False}


def test_prompts_are_never_cut(tmp_path):
    assert StormAnswerConfig(str(tmp_path)).max_length is None


def test_stage_two_learns_at_a_tenth_of_the_rate_of_stage_one(tmp_path):
    rates = [config(str(tmp_path)).learning_rate for config in (StormAlignConfig, StormAnswerConfig)]
    assert rates[1] <= rates[0] / 10


@pytest.mark.parametrize("arguments", [{"num_frames": 0}, {"load_in_4bit": True}])
def test_model_argument_out_of_range_is_refused(arguments):
    with pytest.raises(ConfigurationError, match=next(iter(arguments))):
        StormModelConfig(**arguments)


@pytest.mark.parametrize("config", [StormAlignConfig, StormAnswerConfig])
@pytest.mark.parametrize(
    "setting",
    [
        {"max_length": 16},
        {"truncation_mode": "keep_end"},
        {"completion_only_loss": False},
        {"assistant_only_loss": True},
        {"pad_to_multiple_of": 64},
        {"dataset_text_field": "question"},
        {"dataset_num_proc": 2},
        {"shuffle_dataset": True},
        {"packing": True},
        {"packing_strategy": "wrapped"},
        {"eval_packing": True},
        {"padding_free": True},
        {"dataset_kwargs": {"skip_prepare_dataset": False}},
        {"activation_offloading": True},
        {"bf16_full_eval": True},
        {"fp16_full_eval": True},
    ],
    ids=lambda setting: next(iter(setting)),
)
def test_setting_that_would_do_nothing_is_refused_by_its_name(config, setting, tmp_path):
    with pytest.raises(ConfigurationError, match=f"`{next(iter(setting))}: .*Leave it out"):
        config(str(tmp_path), use_cpu=True, bf16=False, **setting)


@pytest.mark.parametrize(
    "setting", [{"max_length": None}, {"completion_only_loss": True}, {"pad_to_multiple_of": None}, {"packing": False}]
)
def test_setting_that_says_what_is_done_anyway_is_taken(setting, tmp_path):
    StormAnswerConfig(str(tmp_path), use_cpu=True, bf16=False, **setting)


@pytest.mark.parametrize("config", [StormAlignConfig, StormAnswerConfig, StormGRPOConfig])
def test_output_folder_that_is_a_file_is_refused(config, tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(ConfigurationError, match="Expected `output_dir` to be a folder, .* is a file"):
        config(tmp_path / "run" / "stage", use_cpu=True, bf16=False)
