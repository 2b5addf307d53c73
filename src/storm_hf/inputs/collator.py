"""Batches for training: prompts padded on the left, answers on the right, so that all rows share their latent columns.

Axes: B batch, S sequence.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from storm_hf.errors import ConfigurationError
from storm_hf.inputs.prompts import PromptEncoder, Row, encode_rows, pad_rows
from storm_hf.model.configuration_storm import StormConfig
from storm_hf.model.latent_block_storm import PER_TOKEN_INPUTS


IGNORED_LABEL = -100


@dataclass(frozen=True)
class AnswerCollator:
    """Turns rows into a batch that supervises the answer alone.

    It draws no random numbers, and it reads no thought column.

    Args:
        prompts ([`PromptEncoder`]):
            Encodes everything up to the answer.
    """

    prompts: PromptEncoder

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Collate `rows` to model inputs with `labels`, which are -100 everywhere but on the answers."""
        batch = encode_rows(self.prompts, rows)
        answers = [self.encode_answer(self.prompts.completion(row, position)) for position, row in enumerate(rows)]
        return append_answers(batch, answers, self.prompts.processor.tokenizer.pad_token_id)

    def encode_answer(self, text: str) -> torch.Tensor:
        """Tokenize an answer as plain text and end the turn."""
        tokenizer = self.prompts.processor.tokenizer
        token_ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        return torch.tensor([*token_ids, tokenizer.eos_token_id])


def append_answers(
    prompts: dict[str, torch.Tensor], answers: Sequence[torch.Tensor], pad_token_id: int
) -> dict[str, torch.Tensor]:
    """Append tokenized answers to left-padded prompts and label them.

    Args:
        prompts (`dict`):
            Model inputs with `input_ids` and `attention_mask`, and `mm_token_type_ids` if there are any.
        answers (`Sequence[torch.Tensor]`):
            Token ids of each row's answer.
        pad_token_id (`int`):
            Padding at the end of shorter rows.
    """
    ids = pad_rows(answers, pad_token_id, side="right")
    mask = pad_rows([torch.ones_like(answer) for answer in answers], 0, side="right")
    labels = pad_rows(answers, IGNORED_LABEL, side="right")
    batch = dict(prompts)
    batch["labels"] = torch.cat([torch.full_like(prompts["input_ids"], IGNORED_LABEL), labels], dim=1)
    batch["input_ids"] = torch.cat([prompts["input_ids"], ids], dim=1)  # (B, S)
    batch["attention_mask"] = torch.cat([prompts["attention_mask"], mask], dim=1)
    for name in ("clip_token_mask", *PER_TOKEN_INPUTS):
        if name in prompts:
            batch[name] = torch.cat([prompts[name], torch.zeros_like(ids, dtype=prompts[name].dtype)], dim=1)
    return batch


def check_batch(batch: Mapping[str, object], names: Sequence[str], collator: object) -> None:
    """Refuse a batch that lacks what a trainer needs, as a collator of one's own may make it.

    Args:
        batch (`Mapping`):
            Model inputs.
        names (`Sequence[str]`):
            Names of what is needed.
        collator (`Callable`):
            Where it comes from.

    Raises:
        ConfigurationError: If one of them is missing.
    """
    if missing := [name for name in names if batch.get(name) is None]:
        source = getattr(collator, "__name__", type(collator).__name__)
        raise ConfigurationError(
            f"Expected batches with {', '.join(f'`{name}`' for name in names)}, got one without `{missing[0]}` from {source}. "
            "Add it to what `data_collator` returns, or leave `data_collator` out."
        )


def with_fewer_latents(
    batch: dict[str, torch.Tensor], num_latents: int, config: StormConfig
) -> dict[str, torch.Tensor]:
    """The batch as it would have been collated with fewer latents: later placeholders are cut out, and their targets.

    Args:
        batch (`dict`):
            Model inputs, with the same number of placeholders in every row, and maybe `target_trajectory` (B, K, D).
        num_latents (`int`):
            Number of latents that are kept, or more than there are.
        config ([`StormConfig`]):
            Holds the id of a placeholder.
    """
    input_ids = batch["input_ids"]
    is_latent = input_ids.eq(-1 if config.latent_token_id is None else config.latent_token_id)
    is_kept = ~is_latent | (is_latent.cumsum(dim=1) <= num_latents)  # (B, S)
    cut = dict(batch)
    for name in ("input_ids", "attention_mask", "labels", "clip_token_mask", *PER_TOKEN_INPUTS):
        if name in batch:
            cut[name] = batch[name][is_kept].view(len(input_ids), -1)
    if "target_trajectory" in batch:
        cut["target_trajectory"] = batch["target_trajectory"][:, :num_latents]
    return cut
