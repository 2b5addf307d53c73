"""Every backbone that reads videos works along every way, or is refused with the step that fails: the table of docs/backbones.md."""

import pytest
import torch
from accelerate import cpu_offload
from tests.backbone_checks import COLUMNS, RefusedError, make_candidate
from tests.backbones import VIDEO_BACKBONES, tiny_backbone
from tests.tiny import enlarge_weights, tiny_config, tiny_processor
from torch.testing import assert_close
from transformers import AutoModelForImageTextToText, Qwen3VLForConditionalGeneration

from storm_hf.errors import BackboneError
from storm_hf.model import StormForConditionalGeneration, add_latent_tokens
from storm_hf.model.backbone_storm import _size_of_embedded_tokens, can_probe, probe_backbone


pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # of PEFT

# Each has what once was wrong or crashed: scaled and per-layer embeddings, a scaled head, positions that a backbone leaves out, a
# converter that looks for `vision_config`, experts, layers with a short memory.
FAST = ("gemma4", "hyperclovax_vision_v2", "exaone4_5", "kimi_k25", "qwen3_vl_moe", "lfm3_vl")
REFUSED = {"nemotron_h_omni": "`last_hidden_state`"}
WITHOUT_CHECKPOINTING = {
    "cohere_compass",
    "dots3_note",
    "exaone4_5",
    "gemma4",
    "gemma4_unified",
    "glm5_next",
    "hy_v4_vl",
    "muse_glimmer",
    "muse_spark",
    "qwen4_exp",
}
NOT_INSTALLED = {"perception_lm"}  # needs timm
ALL = [kind for kind in VIDEO_BACKBONES if kind not in NOT_INSTALLED and kind not in REFUSED]


def backbones():
    return [pytest.param(kind, marks=() if kind in FAST else pytest.mark.slow) for kind in ALL]


@pytest.fixture(scope="module", params=backbones())
def candidate(request, tmp_path_factory):
    return make_candidate(request.param, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("column", COLUMNS)
def test_backbone_works_along_every_way(candidate, column):
    if column == "checkpointing" and candidate.kind in WITHOUT_CHECKPOINTING:
        with pytest.raises(RefusedError, match="has a"):  # a layer with a short memory
            COLUMNS[column](candidate)
    else:
        COLUMNS[column](candidate)


@pytest.mark.parametrize(("kind", "step"), REFUSED.items())
def test_backbone_that_cannot_is_refused_with_the_step(kind, step, tmp_path):
    with pytest.raises(BackboneError, match=step):
        make_candidate(kind, tmp_path)


# --- the probe ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A saved plain Qwen3-VL."""
    folder = tmp_path_factory.mktemp("plain")
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(tiny_config("qwen3_vl"))
    enlarge_weights(model)
    model.save_pretrained(folder)
    return folder


def make(folder, **arguments):
    processor = add_latent_tokens(tiny_processor(), num_latents=2)
    return StormForConditionalGeneration.from_backbone(folder, num_latents=2, processor=processor, **arguments)


def scaled_head(forward):
    def run(self, *args, **kwargs):
        output = forward(self, *args, **kwargs)
        output.logits = output.logits * 3.0
        return output

    return run


def deaf_to_positions(forward):
    def run(self, *args, position_ids=None, **kwargs):
        width = kwargs["input_ids"].shape[1] if kwargs.get("input_ids") is not None else 1
        position_ids = None if position_ids is None else torch.arange(width).expand_as(position_ids)
        return forward(self, *args, position_ids=position_ids, **kwargs)

    return run


def crashing(forward):
    def run(self, *args, **kwargs):
        if kwargs.get("cache") is not None:
            raise RuntimeError("no cache here")
        return forward(self, *args, **kwargs)

    return run


@pytest.mark.parametrize(
    ("attribute", "fault", "step"),
    [
        ("head", scaled_head, "its head on the states of its body"),
        ("body", deaf_to_positions, "teacher forcing, against the rollout"),
        ("body", crashing, "a rollout of two latents fails with RuntimeError: no cache here"),
    ],
)
def test_probe_names_class_and_step(plain, monkeypatch, attribute, fault, step):
    model_class = Qwen3VLForConditionalGeneration
    if attribute == "body":
        model_class = type(make(plain).backbone.base_model)
    monkeypatch.setattr(model_class, "forward", fault(model_class.forward))
    with pytest.raises(BackboneError) as error:
        make(plain)
    assert "Qwen3VLForConditionalGeneration cannot think in latents" in str(error.value)
    assert step in str(error.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_probe_is_silent_with_any_type_of_weights(plain, dtype):
    assert make(plain, dtype=dtype).dtype == dtype


def test_probe_leaves_no_trace(plain):
    model = make(plain).train()
    before = [dict(vars(module)) for module in model.modules()]
    state = torch.get_rng_state()
    probe_backbone(model)
    assert torch.equal(torch.get_rng_state(), state)
    for module, attributes in zip(model.modules(), before, strict=True):
        assert all(vars(module)[name] is value for name, value in attributes.items())


# --- what from_backbone sets -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gemma4", "muse_glimmer", "qwen2_5_vl"])
def test_unit_latent_is_fed_as_large_as_an_embedded_token(kind, tmp_path):
    tiny_backbone(kind).save_pretrained(tmp_path)
    storm = make(tmp_path)
    embedded = storm.get_input_embeddings()(torch.arange(128)[None])
    assert storm.config.latent_scale == pytest.approx(embedded.square().mean().sqrt().item(), rel=1e-4)


def test_identity_feeds_the_hidden_state_itself(plain):
    assert make(plain, latent_projector="identity").config.latent_scale == 1.0
    assert make(plain, latent_projector="identity", latent_scale=0.5).config.latent_scale == 0.5


def test_offloaded_embedding_is_measured_where_it_computes(plain):
    storm = make(plain)
    embedding, expected = storm.get_input_embeddings(), _size_of_embedded_tokens(storm)
    cpu_offload(embedding, torch.device("cpu"))
    assert embedding.weight.device.type == "meta"
    assert _size_of_embedded_tokens(storm) == pytest.approx(expected, rel=1e-6)
    assert not can_probe(storm)


def test_embedding_without_numbers_is_named(plain):
    storm = make(plain).to("meta")
    with pytest.raises(BackboneError, match="or pass `latent_scale`"):
        _size_of_embedded_tokens(storm)


@torch.no_grad()
def test_balance_of_experts_costs_what_the_backbone_says(tmp_path):
    tiny_backbone("qwen3_vl_moe").save_pretrained(tmp_path)
    storm = make(tmp_path).eval()
    ids = torch.tensor([[50, 51, 52, 53], [0, 60, 61, 62]])
    given = {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": ids, "output_router_logits": True}
    found, expected = storm(**given), storm.backbone(**given)
    assert_close(found.aux_loss, expected.aux_loss)
    thought = {name: value for name, value in given.items() if name != "labels"}
    start_id, latent_id, end_id = storm.config.latent_block_ids
    block = torch.tensor([start_id, latent_id, latent_id, end_id]).expand(2, -1)
    thought["input_ids"] = torch.cat([ids, block], dim=1)
    thought["attention_mask"] = torch.cat([given["attention_mask"], torch.ones_like(block)], dim=1)
    rolled = storm(**thought)
    forced = storm(**thought, forced_latents=rolled.latents, use_cache=False)
    for one, other in zip(rolled.router_logits, forced.router_logits, strict=True):
        assert one.shape[0] == thought["input_ids"].numel()
        kept = thought["attention_mask"].flatten().bool()
        assert_close(one[kept], other[kept], rtol=1e-3, atol=1e-4)
