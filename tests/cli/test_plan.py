import json
from pathlib import Path

import pytest
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
    assert paper["step_bytes"]["cache"] == 0, "Stage I is one parallel pass"
    assert paper["gpu"] == "NVIDIA H100 80GB HBM3"
    assert paper["step_seconds"] == pytest.approx(paper["step_flops"] / (0.4 * 989.4e12))


def test_tables_say_the_same(paper):
    result = run(RECIPES / "paper_7b_align.yaml", "--num-processes", 8, "--zero", 3)
    assert f"{paper['peak_bytes'] / 2**30:.1f} GiB per process" in result.stdout
    assert "4784 of them video" in result.stdout


def test_adapter_and_4_bits_are_counted():
    plan = json.loads(run(RECIPES / "lora_24gb_answer.yaml", "--json").stdout)
    matrices = 28 * (2 * 3584 * (3584 + 512) + 3 * 3584 * 18944)
    assert plan["parameters"]["in_4bit"] == matrices
    rank, layers = 16, 28
    inputs_and_outputs = 2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18944)
    assert plan["parameters"]["lora"] == layers * rank * inputs_and_outputs
    assert plan["parameters"]["trainable"] == plan["parameters"]["lora"] + 3584 * 3584 + 3 * 3584
    assert plan["step_bytes"]["cache"] > 0, "Stage II rolls out"


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
        (None, (), "There is no recipe"),
        ("{broken: [", (), "Expected YAML"),
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
