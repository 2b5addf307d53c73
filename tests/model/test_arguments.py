"""Arguments that act on latents do so, or are refused; lengths, positions and losses count what they should."""

import pytest
import torch
from tests.tiny import LATENT, LATENT_END, LATENT_START, tiny_inputs, tiny_storm, with_clip_mask
from torch.testing import assert_close
from transformers import GenerationConfig

from storm_hf.errors import ConfigurationError, LatentError
from storm_hf.model.cache_storm import rollout_state
from storm_hf.model.rollout_storm import RolloutGradient


@pytest.fixture(scope="module")
def model():
    return tiny_storm("qwen3_vl")


@pytest.mark.parametrize(
    "arguments",
    [
        {"forced_latents": torch.zeros(1, 2, 32)},
        {"latent_intervention": lambda step, latent: latent},
        {"rollout_gradient": RolloutGradient(detach_prompt=True)},
        {"latent_bottleneck": True},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
@pytest.mark.parametrize("given", ["input_ids", "inputs_embeds"])
def test_what_acts_on_latents_is_refused_where_there_are_none(model, arguments, given):
    ids = torch.tensor([[5, 6, 7]])
    prompt = {"input_ids": ids} if given == "input_ids" else {"inputs_embeds": model.get_input_embeddings()(ids)}
    with pytest.raises(LatentError, match=next(iter(arguments))):
        model(**prompt, **arguments)
    if "rollout_gradient" not in arguments:
        with pytest.raises(LatentError, match=next(iter(arguments))):
            model.generate(**prompt, **arguments, max_new_tokens=1)


@torch.no_grad()
def test_latent_block_among_embeddings_is_refused_and_a_prompt_without_one_is_read(model):
    ids = torch.tensor([[0, 0, 5, LATENT_START, LATENT, LATENT_END], [6, 7, 5, LATENT_START, LATENT, LATENT_END]])
    embed = model.get_input_embeddings()
    with pytest.raises(LatentError, match=r"got `inputs_embeds` with such a block.*use LoRA"):
        model(inputs_embeds=embed(ids))
    direct = ids[:, :3]
    assert torch.equal(model(inputs_embeds=embed(direct)).logits, model(input_ids=direct).logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@torch.no_grad()
def test_intervention_of_another_type_is_cast_where_it_is_fed(dtype):
    model = tiny_storm("qwen3_vl").to(torch.bfloat16)
    prompt = {"input_ids": torch.tensor([[5, 6, LATENT_START, LATENT, LATENT, LATENT_END]])}
    donor = torch.randn(1, 2, 32)
    fed = model(**prompt, latent_intervention=lambda step, latent: donor[:, step].to(dtype))
    given = model(**prompt, forced_latents=donor)
    assert_close(fed.logits[:, -1].float(), given.logits[:, -1].float(), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("options", [{"num_latents": 8}, {"latent_bottleneck": True}], ids=["another K", "bottleneck"])
@torch.no_grad()
def test_max_length_of_a_generation_config_counts_the_callers_prompt(model, options):
    prompt = with_clip_mask(tiny_inputs("qwen3_vl"))
    length = prompt["input_ids"].shape[1]
    config = GenerationConfig(max_length=length + 3, eos_token_id=None, pad_token_id=0, do_sample=False)
    assert model.generate(**prompt, **options, generation_config=config).shape[1] == length + 3


def test_latents_without_a_place_to_return_them_are_refused(model):
    with pytest.raises(ConfigurationError, match="return_dict_in_generate=False"):
        model.generate(**tiny_inputs("qwen3_vl"), output_latents=True, return_dict_in_generate=False)


@torch.no_grad()
def test_latent_tokens_never_count_in_the_loss(model):
    prompt = tiny_inputs("qwen3_vl")
    ids = prompt["input_ids"]
    block = torch.isin(ids, torch.tensor([LATENT_START, LATENT, LATENT_END]))
    assert torch.equal(model(**prompt, labels=ids).loss, model(**prompt, labels=ids.masked_fill(block, -100)).loss)


@torch.no_grad()
def test_kept_state_is_no_view_of_the_whole_prompt(model):
    cache = model(**tiny_inputs("qwen3_vl"), use_cache=True).cache
    state = rollout_state(cache).last_hidden_state
    assert state.untyped_storage().nbytes() == state.numel() * 4


@torch.no_grad()
def test_equal_rows_of_the_embedding_do_not_make_video_tokens():
    model, inputs = tiny_storm("qwen3_vl"), tiny_inputs("qwen3_vl")
    model.get_input_embeddings().weight[[model.config.video_token_id, LATENT_START, LATENT_END]] = 0
    rolled = model(**inputs)
    forced = model(**inputs, forced_latents=rolled.latents, use_cache=False)
    assert_close(forced.logits[:, -1], rolled.logits[:, -1], rtol=1e-3, atol=1e-4)
