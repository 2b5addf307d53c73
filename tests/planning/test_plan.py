from dataclasses import replace

import pytest
from tests.backbones import tiny_backbone_config

from storm_hf.errors import BackboneError, ConfigurationError
from storm_hf.planning import Assumptions, Sharing, plan_recipe


WORDS = Assumptions(prompt_tokens=60, question_tokens=60)
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture
def write(tmp_path):
    def write(kind, stage="answer", **arguments):
        tiny_backbone_config(kind).save_pretrained(tmp_path / kind)
        recipe = tmp_path / f"{kind}_{stage}.yaml"
        given = {"bf16": "false", "gradient_checkpointing": "false", "per_device_train_batch_size": 1, **arguments}
        given["model_name_or_path"] = tmp_path / kind
        recipe.write_text("\n".join(f"{name}: {value}" for name, value in given.items()))
        return recipe

    return write


@pytest.mark.parametrize("kind", ["qwen3_vl", "qwen3_5", "qwen3_vl_moe", "internvl"])
def test_backbone_of_any_kind_is_planned(write, kind):
    plan = plan_recipe(write(kind, gradient_checkpointing="true"), WORDS)
    assert plan.weights.total == plan.parameters.total > 0
    assert 0 < plan.step.activations <= plan.step.forward
    share = 1 / 4  # at least, of the weights of a mixture of experts
    assert plan.flops > 6 * share * plan.tokens.total * plan.parameters.decoder.trainable


@pytest.mark.parametrize("zero_stage", [0, 2, 3])
@pytest.mark.parametrize("stage", ["align", "answer"])
def test_step_of_a_process_is_the_same_on_any_number_of_processes(write, stage, zero_stage):
    recipe = write("qwen2_5_vl", stage, bf16="true")
    plans = [
        plan_recipe(recipe, replace(WORDS, sharing=Sharing(num_processes, zero_stage))) for num_processes in (2, 8, 16)
    ]
    for plan in plans:
        assert (plan.step, plan.weights, plan.flops) == (plans[0].step, plans[0].weights, plans[0].flops)


def test_backbone_whose_sizes_depend_on_data_is_refused(write):
    with pytest.raises(BackboneError, match=r"`glm5_next`.*peak_memory_mib"):
        plan_recipe(write("glm5_next"), WORDS)


def test_what_a_trainer_refuses_the_plan_refuses(write):
    with pytest.raises(ConfigurationError, match="sliding|Sliding"):
        plan_recipe(write("gemma4", gradient_checkpointing="true"), WORDS)
    with pytest.raises(ConfigurationError, match="load_in_4bit"):
        plan_recipe(write("qwen2_5_vl", use_peft="true", load_in_8bit="true"), WORDS)


def test_weights_that_train_are_held_in_float32(write):
    assert plan_recipe(write("qwen2_5_vl", dtype="bfloat16"), WORDS).weights.size == pytest.approx(
        4 * plan_recipe(write("qwen2_5_vl"), WORDS).weights.total
    )
    adapted = plan_recipe(write("qwen2_5_vl", dtype="bfloat16", use_peft="true"), WORDS).weights
    assert adapted.size == 2 * (adapted.total - adapted.trainable) + 4 * adapted.trainable


def test_thought_adapter_trains_alone_and_keeps_nothing_of_the_prompt(write):
    half = {"dtype": "bfloat16", "bf16": "true"}
    adapted = plan_recipe(write("qwen2_5_vl", thought_adapter_rank=2, **half), WORDS)
    weights = adapted.weights
    assert 0 < weights.trainable < weights.total / 4
    assert weights.size == 2 * (weights.total - weights.trainable) + 4 * weights.trainable
    lora = plan_recipe(write("qwen2_5_vl", use_peft="true", lora_r=2, **half), WORDS)
    assert adapted.step.activations < lora.step.activations / 2


def test_gradients_that_accumulate_are_there_in_the_forward_pass(write):
    one, two = (plan_recipe(write("qwen2_5_vl", gradient_accumulation_steps=number), WORDS) for number in (1, 2))
    assert two.step.forward - one.step.forward == one.held.gradients
    assert two.flops == 2 * one.flops


@pytest.fixture
def under_zero(write, tmp_path):
    """Plan a stage of a model that is much larger than its batch, on four processes."""

    def under_zero(stage):
        recipe = write("qwen2_5_vl", stage, bf16="true", num_latents=2)
        config = tiny_backbone_config("qwen2_5_vl")
        config.text_config.intermediate_size = 2**15
        config.save_pretrained(tmp_path / "qwen2_5_vl")
        return plan_recipe(recipe, Assumptions(Sharing(4, 2), prompt_tokens=4, answer_tokens=2))

    return under_zero


def test_gradients_under_zero_are_divided_as_they_come(under_zero):
    plan = under_zero("align")
    assert plan.step.backward < plan.weights.trainable_size
    assert plan.update == 2 * plan.held.gradients


def test_gradients_of_a_rollout_are_whole_before_they_are_divided(under_zero):
    """Each pass adds to the gradient of a weight, and the first pass of the model is the last to go back."""
    plan = under_zero("answer")
    assert plan.step.backward > plan.weights.trainable_size


def test_each_latent_step_keeps_more(write):
    few, many = (plan_recipe(write("qwen2_5_vl", num_latents=number), WORDS) for number in (2, 6))
    assert many.step.activations > few.step.activations


def test_adapter_keeps_less_and_checkpointing_least(write):
    whole = plan_recipe(write("qwen2_5_vl", "align"), WORDS)
    adapted = plan_recipe(write("qwen2_5_vl", "align", use_peft="true", lora_r=2, lora_dropout=0.0), WORDS)
    checkpointed = plan_recipe(write("qwen2_5_vl", "align", gradient_checkpointing="true"), WORDS)
    assert checkpointed.step.activations < adapted.step.activations < whole.step.activations
    assert checkpointed.flops == whole.flops, "what is computed once more is not the model's"


def test_dropout_keeps_a_mask_of_a_byte_as_on_a_gpu(write):
    given = {"use_peft": "true", "lora_r": 2, "dtype": "bfloat16", "bf16": "true"}
    plain, dropping = (plan_recipe(write("qwen2_5_vl", "align", **given, lora_dropout=p), WORDS) for p in (0.0, 0.1))
    num_inputs = 5 * 32 + 32 + 48  # of the seven projections of a layer
    assert 0 < dropping.step.activations - plain.step.activations <= 2 * dropping.tokens.total * num_inputs


def test_mask_of_step_attention_counts(write):
    full, step = (
        plan_recipe(
            write("qwen2_5_vl", "align", latent_attention=kind), Assumptions(prompt_tokens=200, question_tokens=8)
        )
        for kind in ("full", "step")
    )
    assert step.step.forward > full.step.forward


def test_weights_in_4_bits_are_unpacked_in_each_pass(write):
    given = {"use_peft": "true", "lora_r": 2, "lora_dropout": 0.0, "dtype": "bfloat16"}
    half = plan_recipe(write("qwen2_5_vl", **given), WORDS)
    packed = plan_recipe(write("qwen2_5_vl", **given, load_in_4bit="true"), WORDS)
    assert packed.weights.size < half.weights.size
    assert packed.step.backward >= half.step.backward
    assert packed.flops == half.flops


def test_bottleneck_adds_a_short_pass(write):
    plain, narrow = (
        plan_recipe(write("qwen2_5_vl", bottleneck_share=share), Assumptions(prompt_tokens=100, question_tokens=20))
        for share in (0.0, 0.5)
    )
    assert plain.video_tokens > 0
    assert plain.flops < narrow.flops < 2 * plain.flops


def test_loss_after_every_step_keeps_the_branches_of_the_cache(write):
    plain, halting = (
        plan_recipe(write("qwen2_5_vl", num_latents=6, halting=given), WORDS) for given in ("false", "true")
    )
    assert halting.weights.trainable == plain.weights.trainable + 32 + 1, "a weight for each hidden number, and a bias"
    assert halting.step.activations > plain.step.activations
    answers = 5 * plain.tokens.answer  # read once more, each after one latent less
    assert halting.flops > plain.flops * (1 + 0.5 * answers / plain.tokens.total)


GROUPS = {"num_generations": 4, "per_device_train_batch_size": 4, "max_completion_length": 12}


@pytest.mark.parametrize(
    ("stage", "given", "expected"), [("answer", None, 8), ("answer", 3, 3), ("grpo", None, 12), ("grpo", 3, 3)]
)
def test_answers_are_as_long_as_is_said_else_as_the_recipe_lets_them_be(write, stage, given, expected):
    recipe = write("qwen2_5_vl", stage, **(GROUPS if stage == "grpo" else {}))
    plan = plan_recipe(recipe, Assumptions(prompt_tokens=60, question_tokens=60, answer_tokens=given))
    assert plan.tokens.answer == expected + 1, "and the marker before it"


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl", "internvl"])
def test_reinforcement_of_any_kind_is_planned(write, kind):
    plan = plan_recipe(write(kind, "grpo", **GROUPS), WORDS)
    assert plan.tokens.answer == 12 + 1, "as long as an answer may be"
    assert 0 < plan.step.activations <= plan.step.forward
    assert plan.parameters.vision.trainable == 0
    stage_two = Assumptions(prompt_tokens=60, question_tokens=60, answer_tokens=12)
    assert plan.flops > plan_recipe(write(kind, per_device_train_batch_size=4), stage_two).flops


def test_roll_outs_of_a_generation_batch_are_in_memory_together(write):
    few, many, halves = (
        plan_recipe(write("qwen2_5_vl", "grpo", **GROUPS, **given), WORDS)
        for given in ({}, {"gradient_accumulation_steps": 8}, {"gradient_accumulation_steps": 8, "donor_share": 0.5})
    )
    assert many.rollouts > 6 * few.rollouts
    assert halves.rollouts < 0.6 * many.rollouts
    assert many.peak > many.held.weights + many.held.optimizer + many.rollouts - 1
    assert few.step.activations == many.step.activations


def test_roll_outs_count_once_for_all_batches_that_they_serve(write):
    once, twice = (plan_recipe(write("qwen2_5_vl", "grpo", **GROUPS, num_iterations=n), WORDS).flops for n in (1, 2))
    passes = 2 * twice - once
    assert 0 < once - passes < passes, "the passes have a backward pass besides"


def test_score_estimator_runs_in_one_parallel_pass(write):
    settings = {**GROUPS, "gradient_checkpointing": "true", "num_latents": 6}
    pathwise, score = (
        plan_recipe(write("qwen2_5_vl", "grpo", **settings, estimator=name), WORDS) for name in ("pathwise", "score")
    )
    assert score.step.activations < pathwise.step.activations


def test_reference_is_a_copy_unless_an_adapter_is_switched_off_for_it(write):
    whole = plan_recipe(write("qwen2_5_vl", "grpo", **GROUPS, beta=0.1), WORDS)
    assert whole.held.reference == whole.weights.size
    assert whole.peak - plan_recipe(write("qwen2_5_vl", "grpo", **GROUPS), WORDS).peak == whole.weights.size
    adapted = plan_recipe(write("qwen2_5_vl", "grpo", **GROUPS, beta=0.1, use_peft="true"), WORDS)
    assert adapted.held.reference == 0


def test_zero_3_gathers_the_weights_for_the_roll_outs_unless_it_is_told_not_to(write):
    shared = Assumptions(Sharing(2, 3), prompt_tokens=60, question_tokens=60)
    gathered, not_gathered = (
        plan_recipe(write("qwen2_5_vl", "grpo", **GROUPS, bf16="true", ds3_gather_for_generation=given), shared)
        for given in ("true", "false")
    )
    assert gathered.rollouts - not_gathered.rollouts == gathered.weights.size
