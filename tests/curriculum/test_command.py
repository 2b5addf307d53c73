"""A command line of a run is taken apart as it is meant."""

import pytest

from storm_hf.curriculum.launch import RunCommand
from storm_hf.errors import ConfigurationError


def test_arguments_of_the_run_and_of_accelerate_are_told_apart():
    command = RunCommand.parse(
        [
            "--max_steps",
            "2",
            "--config",
            "run.yaml",
            "--bf16=false",
            "--",
            "--config_file",
            "x.yaml",
            "--machine_rank=1",
        ]
    )
    assert str(command.config) == "run.yaml"
    assert command.overrides == {"max_steps": 2, "bf16": False}
    assert command.launch_arguments == ("--config_file", "x.yaml", "--machine_rank=1")


def test_number_below_zero_is_a_value():
    assert RunCommand.parse(["--config", "run.yaml", "--max_steps", "-1"]).overrides == {"max_steps": -1}


@pytest.mark.parametrize("given", [["--bf16"], ["--bf16", "--seed", "3", "4"], ["fast", "--seed"]])
def test_argument_without_name_or_value_is_refused(given):
    with pytest.raises(ConfigurationError, match="Expected arguments for all stages as `--name value`"):
        RunCommand.parse(["--config", "run.yaml", *given])


def test_command_without_a_recipe_says_how_it_is_written(capsys):
    with pytest.raises(SystemExit, match="2"):
        RunCommand.parse([])
    assert "--config RECIPE [--NAME VALUE ...] [-- ACCELERATE_ARGUMENT ...]" in capsys.readouterr().err
