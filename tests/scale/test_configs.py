"""The files of `trainers/accelerate`: accelerate reads them, and they start what their comments say."""

import re

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_auto_wrap_policy
from tests.scale.launch import CONFIGS
from tests.tiny import tiny_storm


FILES = sorted(CONFIGS.glob("*.yaml"))
ON_TWO_CORES = ["ddp", "zero2", "zero3", "zero3_offload", "fsdp2"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_accelerate_reads_every_line(file):
    config = load_config_from_file(str(file))
    assert config.num_machines == 1
    assert config.num_processes == (1 if file.stem == "single_cpu" else 2)


@pytest.mark.parametrize("name", ON_TWO_CORES)
def test_device_and_precision_are_left_to_the_recipe(name):
    config = load_config_from_file(str(CONFIGS / f"{name}.yaml"))
    assert config.mixed_precision is None
    assert not config.use_cpu


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_command_in_the_comment_is_one_that_accelerate_takes(file):
    command = re.search(r"accelerate launch (.*)", file.read_text())[1].split()
    arguments = launch_command_parser().parse_args(command)
    assert arguments.config_file == f"trainers/accelerate/{file.name}"
    assert arguments.training_script == "trainers/align.py"


@pytest.mark.parametrize(
    ("name", "stage", "is_offloaded"), [("zero2", 2, False), ("zero3", 3, False), ("zero3_offload", 3, True)]
)
def test_deepspeed_does_what_the_file_is_called(name, stage, is_offloaded):
    settings = load_config_from_file(str(CONFIGS / f"{name}.yaml")).deepspeed_config
    assert settings["zero_stage"] == stage
    assert {settings["offload_optimizer_device"], settings["offload_param_device"]} == {
        "cpu" if is_offloaded else "none"
    }


def test_fsdp2_shards_every_layer_by_itself(kind):
    given = "Qwen2DecoderLayer,SiglipEncoderLayer" if kind == "llava_onevision" else None  # as the file's comment says
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=given,
        cpu_ram_efficient_loading=False,
    )
    model = tiny_storm(kind)
    is_wrapped = fsdp2_prepare_auto_wrap_policy(plugin, model)
    assert all(is_wrapped(layer) for layer in model.get_decoder().layers)
