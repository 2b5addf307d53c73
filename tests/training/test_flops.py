"""FLOPs of a step: the formula, what torch counts, and that every parameter belongs to one part."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.tiny import GRID_KINDS, IMAGE, KINDS, VIDEO, tiny_config, tiny_storm
from tests.training.tiny_training import NUM_LATENTS, STAGES, TinyCollator
from torch.utils.flop_counter import FlopCounterMode

from storm_hf.model import StormConfig, StormForConditionalGeneration
from storm_hf.training.flops import (
    AttentionShape,
    ParameterCounts,
    PartCount,
    TokenCounts,
    attention_shape,
    count_parameters,
    is_dense,
    training_flops,
)
from storm_hf.training.throughput import ThroughputMeter
from storm_hf.training.trained_weights import freeze_vision


# torch counts what its kernels multiply: no norms and no biases, and a rollout that meets fewer keys than a whole square.
TOLERANCE = 0.07
NO_ATTENTION = AttentionShape(decoder_layers=0, decoder_width=0)
# The plain-torch fallback of linear attention computes in chunks of 64 positions, several times what these few need.
COUNTED_KINDS = [kind for kind in KINDS if kind != "qwen3_5"]


def all_trained(size):
    return PartCount(size, size)


def test_trained_model_costs_six_flops_per_parameter_and_token():
    assert training_flops(ParameterCounts(decoder=all_trained(10)), TokenCounts(decoder=7), NO_ATTENTION) == 6 * 10 * 7


def test_frozen_weights_under_an_adapter_cost_four():
    decoder = PartCount(total=100 + 3, trainable=3)
    assert training_flops(ParameterCounts(decoder=decoder), TokenCounts(decoder=7), NO_ATTENTION) == 7 * (400 + 18)


def test_attention_costs_twelve_flops_per_pair_and_channel():
    attention = AttentionShape(decoder_layers=2, decoder_width=8)
    assert training_flops(ParameterCounts(), TokenCounts(decoder=5, decoder_pairs=25), attention) == 12 * 2 * 8 * 25


@pytest.mark.parametrize(("trainable", "factor"), [(0, 2), (10, 6)])
def test_frozen_vision_tower_has_no_backward_pass(trainable, factor):
    parameters = ParameterCounts(vision=PartCount(10, trainable))
    attention = AttentionShape(0, 0, vision_layers=2, vision_width=4)
    flops = training_flops(parameters, TokenCounts(patches=6, patch_pairs=36), attention)
    assert flops == factor * 10 * 6 + 4 * 2 * 4 * 36 * factor / 2


def test_detached_prompt_has_no_backward_pass():
    attention = AttentionShape(decoder_layers=1, decoder_width=1)
    tokens = TokenCounts(decoder=10, decoder_pairs=100, detached=6, detached_pairs=36)
    flops = training_flops(ParameterCounts(decoder=all_trained(2)), tokens, attention)
    assert flops == (6 * 2 * 10 - 4 * 2 * 6) + (12 * 100 - 8 * 36)


def test_counts_of_batches_add_up():
    assert TokenCounts(decoder=1, video=2) + TokenCounts(decoder=3, latents=4) == TokenCounts(4, latents=4, video=2)


def test_every_parameter_belongs_to_one_part(kind):
    model = tiny_storm(kind)
    freeze_vision(model)
    counts = count_parameters(model)
    assert counts.total == sum(parameter.numel() for parameter in model.parameters())
    assert counts.trainable == sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert counts.vision.trainable == counts.merger.trainable == 0
    assert min(counts.vision.total, counts.merger.total, counts.decoder.total, counts.projector.total) > 0
    assert counts.is_head_tied == (counts.head.total == 0)


def test_parameters_are_counted_without_weights(kind):
    config = StormConfig(vlm_config=tiny_config(kind), num_latents=2)
    with torch.device("meta"):
        model = StormForConditionalGeneration(config)
    assert count_parameters(model) == count_parameters(tiny_storm(kind))


# PEFT reads an attribute that transformers has renamed (https://github.com/huggingface/peft).
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_adapter_counts_with_its_part_and_what_it_replaces_only_once():
    whole = count_parameters(tiny_storm("qwen2_5_vl"))
    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["latent_projector"])
    adapted = count_parameters(get_peft_model(tiny_storm("qwen2_5_vl"), config))
    num_adapter = 2 * 2 * (32 + 32)  # layers, rank, ins and outs
    assert adapted.decoder == PartCount(whole.decoder.total + num_adapter, num_adapter)
    assert adapted.projector == whole.projector
    assert adapted.embeddings.trainable == adapted.head.trainable == 0


def test_partitioned_parameter_counts_whole():
    """Under ZeRO-3 a process holds nothing of a parameter between uses, and DeepSpeed says how large it is."""
    model = tiny_storm("qwen2_5_vl")
    whole = count_parameters(model)
    for parameter in model.get_decoder().layers.parameters():
        parameter.ds_numel = parameter.numel()
        parameter.data = torch.empty(0)
    assert count_parameters(model) == whole


def test_mixture_of_experts_is_told_apart():
    config = tiny_config("qwen2_5_vl")
    assert is_dense(config)
    config.get_text_config().num_experts = 8
    assert not is_dense(config)


def counted_by_torch(model, batch, stage):
    targets = batch.pop("target_trajectory")
    with FlopCounterMode(display=False) as counter:
        output = model(**batch, **({"forced_latents": targets} if stage == "align" else {}), use_cache=False)
        (output.loss + output.latents.sum()).backward()
    return counter.get_total_flops()


def step_of(kind, stage, is_frozen):
    """FLOPs of a step without padding: by the formula, with the tokens as trainers count them, and as torch counts."""
    model = tiny_storm(kind, num_latents=NUM_LATENTS).train()
    model.set_attn_implementation(
        "eager"
    )  # torch counts the products of some fused kernels twice, of others not at all
    freeze_vision(model, is_frozen)
    batch = TinyCollator(kind, with_targets=True)([{"number": 1}, {"number": 1}])
    meter = ThroughputMeter(model.config)
    meter.observe([batch])
    tokens = meter.read(lambda row: row, torch.device("cpu")).tokens
    formula = training_flops(count_parameters(model), tokens, attention_shape(model.config))
    return formula, counted_by_torch(model, batch, stage)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", COUNTED_KINDS)
def test_formula_is_what_torch_counts(kind, stage):
    formula, counted = step_of(kind, stage, is_frozen=True)
    assert formula == pytest.approx(counted, rel=TOLERANCE)


@pytest.mark.parametrize("kind", COUNTED_KINDS)
def test_formula_of_a_trained_tower_leaves_out_only_the_gradient_of_the_pixels(kind):
    """Two layers wide as a patch, the tower of a tiny model is mostly its first matrix, whose input needs no gradient."""
    formula, counted = step_of(kind, "align", is_frozen=False)
    assert counted <= formula <= 1.3 * counted


def test_video_tokens_are_those_of_the_prompt(kind):
    batch = TinyCollator(kind)([{"number": 1}])
    meter = ThroughputMeter(tiny_storm(kind).config)
    meter.observe([batch])
    tokens = meter.read(lambda row: row, torch.device("cpu")).tokens
    is_video = batch["input_ids"] == (VIDEO if kind in (*GRID_KINDS, "llava_onevision") else IMAGE)
    assert tokens.video == int(is_video.sum())
    assert tokens.patches == {"llava_onevision": 2 * 4}.get(kind, 2 * 16)
    assert tokens.patch_pairs == {"llava_onevision": 2 * 4**2}.get(kind, 2 * 16**2)
