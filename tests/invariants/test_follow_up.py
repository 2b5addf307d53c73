"""A second question thinks again on the cache of the first, as the whole conversation read without a cache."""

import pytest
import torch
from tests.reference import PER_TOKEN, append, row_of
from tests.tiny import EOS, LATENT, LATENT_END, LATENT_START, VISION_TOKENS, tiny_inputs
from torch.testing import assert_close


QUESTION = (EOS, 21, 35, 48)  # the first turn ends, and another one is written
ANSWER = {
    "eos_token_id": None,
    "suppress_tokens": VISION_TOKENS,
    "do_sample": False,
    "output_latents": True,
    "return_dict_in_generate": True,
}
KEPT = (
    "input_ids",
    "attention_mask",
    "mm_token_type_ids",
    "video_grid_thw",
    "second_per_grid_ts",
)  # of an encoded clip


def ask_again(storm, inputs, num_latents):
    """Ask, and then ask a second question on what was kept."""
    first = storm.generate(**inputs, max_new_tokens=3, **ANSWER)
    block = [LATENT_START, *[LATENT] * num_latents, LATENT_END]
    answered = append(inputs, first.sequences[:, inputs["input_ids"].shape[1] :])
    conversation = append(answered, torch.tensor([[*QUESTION, *block]]).expand(len(answered["input_ids"]), -1))
    second = storm.generate(
        **{name: conversation[name] for name in KEPT if name in conversation},
        cache=first.cache,
        max_new_tokens=3,
        **ANSWER,
    )
    return conversation, first, second


def positions_of(storm, inputs):
    known = {name: value for name, value in inputs.items() if name != "input_ids"}
    return storm._prepare_position_ids_for_generation(inputs["input_ids"], known)


def read_whole(storm, inputs, latents):
    """One uncached pass of the backbone over a conversation, with latents (B, k, D) in its first k placeholders."""
    input_ids = inputs["input_ids"]
    embeds, given = storm.get_input_embeddings()(input_ids), latents * storm.config.latent_scale
    columns = (input_ids[0] == LATENT).nonzero()[: given.shape[1], 0]
    embeds = embeds.index_copy(1, columns, given)
    vision = {name: value for name, value in inputs.items() if name not in PER_TOKEN}
    return storm.backbone(
        inputs_embeds=embeds,
        attention_mask=inputs["attention_mask"],
        position_ids=positions_of(storm, inputs),
        use_cache=False,
        output_hidden_states=True,
        **vision,
    )


@pytest.mark.parametrize("num_latents", [4, 2])
@torch.no_grad()
def test_second_thought_is_that_of_the_conversation_read_whole(storm, kind, num_latents):
    inputs = row_of(tiny_inputs(kind), 0)
    conversation, first, second = ask_again(storm, inputs, num_latents)
    columns = (conversation["input_ids"][0] == LATENT).nonzero()[:, 0]
    latents = first.latents
    for column in columns[latents.shape[1] :]:
        states = read_whole(storm, conversation, latents).hidden_states[-1]
        latents = torch.cat([latents, storm.model.latent_projector(states[:, column - 1])[:, None]], dim=1)
    assert_close(second.latents, latents[:, first.latents.shape[1] :], rtol=1e-4, atol=1e-4)
    answered = append(conversation, second.sequences[:, conversation["input_ids"].shape[1] :])
    logits = read_whole(storm, answered, latents).logits[0, conversation["input_ids"].shape[1] - 1 : -1]
    logits[:, list((*VISION_TOKENS, LATENT, LATENT_START, LATENT_END))] = -torch.inf
    assert logits.argmax(dim=-1).tolist() == second.sequences[0, conversation["input_ids"].shape[1] :].tolist()


@torch.no_grad()
def test_second_thought_depends_on_the_first(storm, kind):
    """With other latents in the first turn, the same second question is thought through otherwise."""
    inputs = row_of(tiny_inputs(kind), 0)
    conversation, first, second = ask_again(storm, inputs, 4)
    again = storm.generate(
        **inputs, max_new_tokens=3, latent_intervention=lambda step, latent: torch.zeros_like(latent), **ANSWER
    )
    other = storm.generate(
        **{name: conversation[name] for name in KEPT if name in conversation},
        cache=again.cache,
        max_new_tokens=3,
        **ANSWER,
    )
    assert not torch.allclose(other.latents, second.latents, atol=1e-3)


@torch.no_grad()
def test_rows_of_a_batch_think_again_as_they_do_alone(storm, kind):
    inputs = tiny_inputs(kind)
    _, _, together = ask_again(storm, inputs, 3)
    for row in range(2):
        _, _, alone = ask_again(storm, row_of(inputs, row), 3)
        assert_close(together.latents[row], alone.latents[0], rtol=1e-4, atol=1e-4)
        assert together.sequences[row, -3:].tolist() == alone.sequences[0, -3:].tolist()
