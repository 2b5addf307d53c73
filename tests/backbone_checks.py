"""The checks behind the table of backbones: each is a column, and each compares two ways that must agree.

Prompts are words without a clip, since how a backbone reads a clip is its own business, and weights are random.

Axes: B batch, S sequence, K latent steps, D hidden size.
"""

import copy
import inspect
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from tests.backbones import tiny_backbone
from tests.tiny import PAD, tiny_processor, tiny_tokenizer
from tests.training.tiny_training import QUIET, TinyCollator, stack_prompts, tiny_rows
from torch import nn
from transformers import AutoModelForImageTextToText, set_seed

from storm_hf import StormAlignConfig, StormAlignTrainer, StormAnswerConfig, StormAnswerTrainer
from storm_hf.errors import ConfigurationError
from storm_hf.inputs.collator import append_answers
from storm_hf.model import StormForConditionalGeneration, add_latent_tokens


NUM_LATENTS = 3
WORDS = ([50, 51, 52, 53, 54, 55, 56], [60, 61, 62])
CLOSE = 1e-3  # of the largest number compared
GREEDY = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
LOGITS = {**GREEDY, "return_dict_in_generate": True, "output_logits": True}


@dataclass
class Candidate:
    """A tiny plain model of a backbone, and the STORM made of it."""

    kind: str
    folder: Path
    storm: StormForConditionalGeneration

    def prompts(self, rows: Sequence[list[int]] = WORDS) -> dict[str, torch.Tensor]:
        """Words and a latent block, padded on the left."""
        start_id, latent_id, end_id = self.storm.config.latent_block_ids
        prompts = [[*row, start_id, *[latent_id] * NUM_LATENTS, end_id] for row in rows]
        width = max(map(len, prompts))
        inputs = {
            "input_ids": torch.tensor([[PAD] * (width - len(row)) + row for row in prompts]),
            "attention_mask": torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts]),
        }
        if "mm_token_type_ids" in inspect.signature(self.storm.backbone.forward).parameters:
            inputs["mm_token_type_ids"] = torch.zeros_like(inputs["input_ids"])
        return inputs


@dataclass(frozen=True)
class WordsCollator(TinyCollator):
    """Training batches of words with the latent tokens of a candidate."""

    candidate: Candidate | None = None

    def __call__(self, rows):
        numbers = [row["number"] for row in rows]
        prompts = [self.candidate.prompts([WORDS[0][: 3 + number % 4]]) for number in numbers]
        batch = append_answers(stack_prompts(prompts), [self.answer(number) for number in numbers], PAD)
        if self.with_targets:
            batch["target_trajectory"] = torch.stack([self.target(number) for number in numbers])
        return batch


def make_candidate(kind: str, folder: Path) -> Candidate:
    """Save a plain tiny model in `folder` and make a STORM of it, as anybody would."""
    set_seed(0)
    tiny_backbone(kind).save_pretrained(folder)
    processor = add_latent_tokens(tiny_processor(), num_latents=NUM_LATENTS)
    storm = StormForConditionalGeneration.from_backbone(folder, num_latents=NUM_LATENTS, processor=processor)
    storm.generation_config.eos_token_id = None
    return Candidate(kind, folder, storm.eval())


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Refuse two ways that differ."""
    assert found.shape == expected.shape, f"shapes {tuple(found.shape)} and {tuple(expected.shape)}"
    difference, size = (found - expected).abs().max().item(), expected.abs().max().item()
    assert difference <= CLOSE * size, f"differs by {difference:.2g} of {size:.2g}"


# --- what the model does -----------------------------------------------------------------------------------------------


@torch.no_grad()
def weights_and_logits(candidate: Candidate) -> None:
    """Weights are those of the stock model, and so are answers without latents."""
    plain = AutoModelForImageTextToText.from_pretrained(candidate.folder).eval()
    loaded = candidate.storm.backbone.state_dict()
    assert set(loaded) == set(plain.state_dict())
    for name, weight in plain.state_dict().items():
        rows = loaded[name][: len(weight)] if weight.ndim else loaded[name]  # the vocabulary grew
        assert torch.equal(rows, weight) or "per_layer" in name, name
    words = torch.tensor([WORDS[0]])
    found = candidate.storm(input_ids=words).logits
    assert_close(found[..., : plain(input_ids=words).logits.shape[-1]], plain(input_ids=words).logits)


@torch.no_grad()
def rollout_equals_recomputation(candidate: Candidate) -> None:
    """Each latent is the one that a pass without a cache makes of the latents before it."""
    storm, prompts = candidate.storm, candidate.prompts()
    latents = storm(**prompts).latents
    given = torch.zeros_like(latents)
    for step in range(NUM_LATENTS):
        found = storm(**prompts, forced_latents=given, use_cache=False).latents[:, step]
        assert_close(found, latents[:, step])
        given[:, step] = found


@torch.no_grad()
def forced_equals_rolled_out(candidate: Candidate) -> None:
    """Teacher forcing with the model's own latents changes nothing, and with others changes the answer."""
    storm, prompts = candidate.storm, candidate.prompts()
    rolled = storm(**prompts)
    forced = storm(**prompts, forced_latents=rolled.latents)
    assert_close(forced.logits[:, -1], rolled.logits[:, -1])
    assert_close(forced.latents, rolled.latents)
    other = storm(**prompts, forced_latents=-rolled.latents)
    assert not torch.allclose(other.logits[:, -1], rolled.logits[:, -1], atol=1e-5)


@torch.no_grad()
def padded_equals_alone(candidate: Candidate) -> None:
    """A row is the same in a batch and alone, and so is the answer that follows it."""
    storm = candidate.storm
    both = storm.generate(**candidate.prompts(), **LOGITS, output_latents=True)
    for row, words in enumerate(WORDS):
        alone = storm.generate(**candidate.prompts([words]), **LOGITS, output_latents=True)
        assert_close(both.latents[row], alone.latents[0])
        for one, other in zip(both.logits, alone.logits, strict=True):
            assert_close(one[row], other[0])
            if one[row].argmax() != other[0].argmax():
                break


@torch.no_grad()
def cached_equals_uncached(candidate: Candidate) -> None:
    """Decoding with a cache gives the logits of one pass over all."""
    storm = candidate.storm
    cached, anew = (storm.generate(**candidate.prompts(), **LOGITS, use_cache=flag) for flag in (True, False))
    assert torch.equal(cached.sequences, anew.sequences)
    for one, other in zip(cached.logits, anew.logits, strict=True):
        assert_close(one, other)


@torch.no_grad()
def generation(candidate: Candidate) -> None:
    """Beams, another K, an intervention and the bottleneck give answers."""
    storm, prompts = candidate.storm, candidate.prompts()
    assert storm.generate(**prompts, **GREEDY, num_beams=2).shape[0] == 2
    output = storm.generate(**prompts, **LOGITS, num_latents=5, output_latents=True)
    assert output.latents.shape[1] == 5
    plain = storm.generate(**prompts, **LOGITS)
    zeroed = storm.generate(**prompts, **LOGITS, latent_intervention=lambda step, latent: latent * 0)
    assert not torch.allclose(plain.logits[0], zeroed.logits[0], atol=1e-5)
    latents = storm(**prompts).latents
    mask = torch.zeros_like(prompts["input_ids"])
    narrow = storm.generate(**prompts, **LOGITS, latent_bottleneck=True, clip_token_mask=mask)
    given = storm.generate(**prompts, **LOGITS, forced_latents=latents)
    assert_close(narrow.logits[0], given.logits[0])


@torch.no_grad()
def saving_and_loading(candidate: Candidate) -> None:
    """A saved model is loaded as it was."""
    with tempfile.TemporaryDirectory() as folder:
        candidate.storm.save_pretrained(folder)
        again, info = StormForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"], sorted(info["missing_keys"])[:3]
    assert not info["unexpected_keys"], sorted(info["unexpected_keys"])[:3]
    prompts = candidate.prompts()
    assert_close(again.eval()(**prompts).logits, candidate.storm(**prompts).logits)


# --- training ----------------------------------------------------------------------------------------------------------


def train(candidate: Candidate, stage: str, **settings: object) -> list[float]:
    """Two steps of a stage; returns its losses."""
    config_class, trainer_class = {
        "align": (StormAlignConfig, StormAlignTrainer),
        "answer": (StormAnswerConfig, StormAnswerTrainer),
    }[stage]
    model = copy.deepcopy(candidate.storm)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_class(
            model=model,
            args=config_class(folder, **{**QUIET, "max_steps": 2, "learning_rate": 1e-3, **settings}),
            train_dataset=tiny_rows(4),
            processing_class=tiny_tokenizer(),
            data_collator=WordsCollator(candidate.kind, NUM_LATENTS, stage == "align", candidate),
        )
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 2, losses
    assert all(torch.tensor(losses).isfinite()), losses
    assert not torch.equal(*(next(m.model.latent_projector.parameters()) for m in (model, candidate.storm)))
    return losses


def stage_align(candidate: Candidate) -> None:
    """Two steps of Stage I."""
    train(candidate, "align")


def stage_answer(candidate: Candidate) -> None:
    """Two steps of Stage II."""
    train(candidate, "answer")


def checkpointing(candidate: Candidate) -> None:
    """Gradient checkpointing trains the same, or is refused."""
    expected = train(candidate, "answer")
    try:
        losses = train(candidate, "answer", gradient_checkpointing=True)
    except ConfigurationError as error:
        raise RefusedError(str(error).split(". ")[0]) from error
    assert_close(torch.tensor(losses), torch.tensor(expected))


class RefusedError(Exception):
    """A clear refusal of ours, which is no fault."""


def lora(candidate: Candidate) -> None:
    """Adapters of the language model and a whole projector get gradients, and a merged model answers the same."""
    model = copy.deepcopy(candidate.storm)
    decoder = {id(module) for module in model.get_decoder().modules()}
    named = [
        name
        for name, module in model.named_modules()
        if id(module) in decoder and type(module) is nn.Linear and "lm_head" not in name
    ]
    adapted = get_peft_model(
        model, LoraConfig(r=2, target_modules=named, modules_to_save=["latent_projector"], init_lora_weights=False)
    )
    prompts = candidate.prompts()
    adapted(**prompts, labels=prompts["input_ids"]).loss.backward()
    grads = [weight.grad for name, weight in adapted.named_parameters() if "lora_B" in name]
    assert any(grad is not None and grad.abs().max() > 0 for grad in grads)
    with torch.no_grad():
        expected = adapted.eval()(**prompts).logits
        assert_close(adapted.merge_and_unload()(**prompts).logits, expected)


COLUMNS: dict[str, Callable[[Candidate], None]] = {
    "weights and logits": weights_and_logits,
    "rollout = recomputed": rollout_equals_recomputation,
    "forced = rolled out": forced_equals_rolled_out,
    "padded = alone": padded_equals_alone,
    "cached = uncached": cached_equals_uncached,
    "generate": generation,
    "Stage I": stage_align,
    "Stage II": stage_answer,
    "checkpointing": checkpointing,
    "save, load": saving_and_loading,
    "LoRA": lora,
}
