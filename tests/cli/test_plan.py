import json
from pathlib import Path

import pytest
from tests.planning.measured import each_step_is_measured_once  # noqa: F401
from typer.testing import CliRunner

from storm_hf.cli import app


RECIPES = Path(__file__).parents[2] / "trainers" / "recipes"


def run(*arguments):
    return CliRunner().invoke(app, ["plan", *map(str, arguments)])


@pytest.fixture(scope="module")
def paper():
    result = run(RECIPES / "paper_7b_align.yaml", "--num-processes", 8, "--zero", 3, "--gpu", "h100", "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_plan_for_programs_has_every_part(paper):
    assert paper["parameters"]["total"] == 8_292_166_656
    assert paper["parameters"]["vision"]["trainable"] == paper["parameters"]["merger"]["trainable"] == 0
    assert paper["parameters"]["projector"]["total"] == 0, "the paper feeds hidden states back as they are"
    assert paper["tokens"] == {"prompt": 4784 + 2 + 128 + 1, "latents": 8, "answer": 9, "video": 4784}
    assert paper["held_bytes"]["weights"] == -(-2 * 8_292_166_656 // 8)
    assert paper["step_bytes"]["pixels"] == 4 * 4784 * 4 * 3 * 2 * 14**2
    assert (paper["gpu"], paper["gpu_memory_gib"], paper["fits"]) == ("NVIDIA H100 80GB HBM3", 80, True)
    assert paper["step_seconds"] == pytest.approx(paper["step_flops"] / (0.4 * 989.4e12))


def test_tables_say_the_same(paper):
    result = run(RECIPES / "paper_7b_align.yaml", "--num-processes", 8, "--zero", 3)
    assert f"{paper['peak_bytes'] / 2**30:.1f} GiB per process" in result.stdout
    assert "4784 of them video" in result.stdout


def test_last_line_is_the_verdict():
    options = ((), ("--gpu", "4090"), ("--gpu", "b200"))
    last = [run(RECIPES / "paper_7b_align.yaml", *option).stdout.splitlines()[-1] for option in options]
    assert [line.partition(":")[0] for line in last] == ["Peak"] * 3
    assert last[0].endswith("GiB per process: fits GPUs from 141 GiB up")
    assert last[1].endswith("of 24 GiB: does not fit")
    assert last[2].endswith("of 180 GiB: fits")


def test_rows_of_nothing_are_hidden():
    alone, together = (run(RECIPES / "lora_24gb_align.yaml", "--num-processes", number).stdout for number in (1, 8))
    assert "exchanged between processes" not in alone
    assert "exchanged between processes" in together
    assert " 0.00 " not in alone + together


def test_adapter_and_4_bits_are_counted():
    plan = json.loads(run(RECIPES / "lora_24gb_answer.yaml", "--json").stdout)
    matrices = 28 * (2 * 3584 * (3584 + 512) + 3 * 3584 * 18944)
    assert plan["parameters"]["in_4bit"] == matrices
    rank, layers = 16, 28
    inputs_and_outputs = 2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18944)
    assert plan["parameters"]["lora"] == layers * rank * inputs_and_outputs
    assert plan["parameters"]["trainable"] == plan["parameters"]["lora"] + 3584 * 3584 + 3 * 3584


def test_longer_prompts_take_more(qwen_checkpoint, tmp_path):
    recipe = tmp_path / "my_answer.yaml"
    recipe.write_text(f"model_name_or_path: {qwen_checkpoint}\nbf16: false")
    short, long = (json.loads(run(recipe, "--prompt-tokens", length, "--json").stdout) for length in (1000, 2000))
    assert long["tokens"]["prompt"] == 2001
    assert long["step_bytes"]["activations"] > 1.9 * short["step_bytes"]["activations"]
    assert long["held_bytes"] == short["held_bytes"]


@pytest.mark.parametrize(
    ("text", "arguments", "says"),
    [
        (None, (), "There is no file"),
        ("{broken: [", (), "Expected YAML"),
        ("sources: {train: [{path: a.jsonl}]}", (), "a recipe of a data set, not of a trainer"),
        ("model_name_or_path: nobody/nothing", (), "nobody/nothing"),
        ("model_name_or_path: x\nlearning_rte: 1", (), "Did you mean `learning_rate`?"),
        ("model_name_or_path: Qwen/Qwen2.5-VL-7B-Instruct", ("--gpu", "abacus"), "abacus"),
        ("model_name_or_path: Qwen/Qwen2.5-VL-7B-Instruct", ("--zero", "1"), "--zero 0, 2 or 3"),
        ("model_name_or_path: Qwen/Qwen2.5-VL-7B-Instruct", ("--clip-size", "large"), "WIDTHxHEIGHT"),
        ("model_name_or_path: Qwen/Qwen2.5-VL-7B-Instruct\noptim: sgd", (), "AdamW"),
    ],
)
def test_what_cannot_be_planned_is_one_sentence_and_code_2(tmp_path, text, arguments, says):
    recipe = tmp_path / "my_align.yaml"
    if text is not None:
        recipe.write_text(text)
    result = run(recipe, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("storm: ")
    assert says in result.stderr
    assert result.stderr.count("\n") == 1


def test_help_has_examples():
    result = run("--help")
    assert result.exit_code == 0
    assert "storm plan" in result.stdout.partition("Examples:")[2]


def test_recipe_that_comes_with_the_package_goes_by_its_name(qwen_checkpoint):
    arguments = ("--model", qwen_checkpoint, "--prompt-tokens", 64, "--json")
    by_name, by_path = (run(recipe, *arguments) for recipe in ("lora_24gb_answer", RECIPES / "lora_24gb_answer.yaml"))
    assert by_name.exit_code == 0, by_name.stderr
    assert json.loads(by_name.stdout)["peak_bytes"] == json.loads(by_path.stdout)["peak_bytes"]


def test_backbone_as_config_is_refused_with_the_form_that_is_taken():
    result = run("lora_24gb_answer", "--config", "x")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "storm: `--config` of `storm plan` has become `--model`.\n"
