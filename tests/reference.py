"""The rollout and generation once more, in the plainest form: no cache, no `generate`, everything recomputed each time.

Axes: B batch, S sequence, K latent steps, D hidden size, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
from tests.tiny import LATENT, LATENT_END, LATENT_START, VISION_TOKENS
from transformers.modeling_outputs import ModelOutput

from storm_hf.model import StormForConditionalGeneration


PER_TOKEN = ("input_ids", "attention_mask", "mm_token_type_ids", "labels")
Inputs = dict[str, torch.Tensor]


def row_of(inputs: Inputs, index: int) -> Inputs:
    """Take one row out of a batch, without its padding."""
    batch_size = len(inputs["input_ids"])
    is_token = inputs["attention_mask"][index].bool()
    row = {}
    for name, value in inputs.items():
        each = len(value) // batch_size
        row[name] = value[index * each : (index + 1) * each]
        if name in PER_TOKEN:
            row[name] = row[name][:, is_token]
    return row


def pad_on_the_right(inputs: Inputs) -> Inputs:
    """Move the padding of a batch from the left to the right."""
    moved = dict(inputs)
    for name in PER_TOKEN:
        if name in inputs:
            moved[name] = torch.full_like(inputs[name], -100 if name == "labels" else 0)
            for row, is_token in enumerate(inputs["attention_mask"].bool()):
                moved[name][row, : int(is_token.sum())] = inputs[name][row, is_token]
    return moved


def append(inputs: Inputs, tokens: torch.Tensor) -> Inputs:
    """Append text tokens (B, n) to every row."""
    longer = {**inputs, "input_ids": torch.cat([inputs["input_ids"], tokens], dim=1)}
    for name, value in (("attention_mask", 1), ("mm_token_type_ids", 0)):
        if name in inputs:
            longer[name] = torch.cat([inputs[name], torch.full_like(tokens, value).to(inputs[name].dtype)], dim=1)
    return longer


def run_in_parallel(
    model: StormForConditionalGeneration,
    inputs: Inputs,
    latents: torch.Tensor,
    stop: int | None = None,
    **options: Any,
) -> ModelOutput:
    """One uncached pass of the backbone over the columns before `stop`, with latents (B, k, D) in the first k slots."""
    input_ids = inputs["input_ids"][:, :stop]
    positions = model._prepare_position_ids_for_generation(
        inputs["input_ids"], {name: value for name, value in inputs.items() if name != "input_ids"}
    )
    first = first_slot(inputs)
    embeds = model.get_input_embeddings()(input_ids)
    filled = latents * model.config.latent_scale
    embeds = torch.cat([embeds[:, :first], filled, embeds[:, first + latents.shape[1] :]], dim=1)
    vision = {name: value for name, value in inputs.items() if name not in PER_TOKEN}
    return model.backbone(
        inputs_embeds=embeds,
        attention_mask=inputs["attention_mask"][:, :stop],
        position_ids=positions[..., :stop],
        use_cache=False,
        output_hidden_states=True,
        **vision,
        **options,
    )


def first_slot(inputs: Inputs) -> int:
    """Column of the first placeholder of a left-padded batch."""
    return int((inputs["input_ids"][0] == LATENT).nonzero()[0])


def recompute_latents(model: StormForConditionalGeneration, inputs: Inputs) -> torch.Tensor:
    """The rollout without a cache: for each latent, the whole sequence before it again."""
    first, num_latents = first_slot(inputs), int((inputs["input_ids"][0] == LATENT).sum())
    latents = model.get_input_embeddings().weight.new_zeros(len(inputs["input_ids"]), 0, model.config.hidden_size)
    for step in range(num_latents):
        states = run_in_parallel(model, inputs, latents, stop=first + step).hidden_states[-1]
        latents = torch.cat([latents, model.model.latent_projector(states[:, -1:])], dim=1)
    return latents


@torch.no_grad()
def continue_without_cache(
    model: StormForConditionalGeneration,
    inputs: Inputs,
    num_tokens: int,
    pick: Callable[[torch.Tensor], torch.Tensor] = lambda logits: logits.argmax(dim=-1),
) -> torch.Tensor:
    """Answer token by token, with the whole rollout recomputed for each; `pick` chooses from logits (B, V).

    A vision token in the answer would need pixels that do not exist, so it is never chosen.
    """
    for _ in range(num_tokens):
        latents = recompute_latents(model, inputs)
        logits = run_in_parallel(model, inputs, latents).logits[:, -1]
        logits[:, [LATENT_START, LATENT, LATENT_END, *VISION_TOKENS]] = -torch.inf
        inputs = append(inputs, pick(logits)[:, None])
    return inputs["input_ids"][:, -num_tokens:]
