"""A random STORM with the demo's processor, and questions about real clips of the shuffle world for it."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.tiny import enlarge_weights
from transformers import ProcessorMixin, set_seed

from storm_hf.demo.backbone import tiny_config, tiny_processor
from storm_hf.evaluation import Answer, answer_questions
from storm_hf.inputs.prompts import PromptEncoder
from storm_hf.model import StormForConditionalGeneration
from storm_hf.video import write_video
from storm_hf.worlds import make_world


NUM_LATENTS = 4
WORLD = make_world("shuffle", num_steps=NUM_LATENTS, min_swaps=1, max_swaps=NUM_LATENTS)


@dataclass(frozen=True)
class Thinker:
    """The model, its processor and rows to answer. Answers are nonsense, but each depends on every latent."""

    model: StormForConditionalGeneration
    processor: ProcessorMixin
    rows: list[dict[str, Any]]

    def prompts(self, num_latents: int = NUM_LATENTS) -> PromptEncoder:
        return PromptEncoder(self.processor, self.model.config, num_latents)

    def answer(self, rows: Sequence[dict[str, Any]] | None = None, **arguments: Any) -> list[Answer]:
        return answer_questions(self.model, self.prompts(), self.rows if rows is None else rows, **arguments)


def make_thinker(folder: Path, num_rows: int = 5) -> Thinker:
    """Build the model and write the clips."""
    processor = tiny_processor(WORLD.vocabulary, NUM_LATENTS, frame_pixels=16 * 64)
    set_seed(0)
    model = StormForConditionalGeneration(tiny_config(processor, NUM_LATENTS, latent_scale=0.5)).eval()
    enlarge_weights(model.backbone)
    return Thinker(model, processor, [_row(folder, seed) for seed in range(num_rows)])


@contextmanager
def saying(thinker: Thinker, text: str) -> Iterator[None]:
    """Let the model think as always and then say `text`, whatever it is asked."""
    tokenizer = thinker.processor.tokenizer
    script = itertools.cycle([*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id])

    def replace_logits(module: Any, inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        said = torch.full_like(logits, -100.0)
        said[..., next(script)] = 100.0
        return said

    hook = thinker.model.get_output_embeddings().register_forward_hook(replace_logits)
    try:
        yield
    finally:
        hook.remove()


def _row(folder: Path, seed: int) -> dict[str, Any]:
    episode = WORLD.episode(seed)
    clip = write_video(folder / f"{seed}.mp4", episode.clip, fps=episode.fps)
    words = {"question": episode.question, "options": list(episode.options), "answer": episode.answer}
    return {"video": str(clip), **words, "depth": episode.depth, "states": list(episode.states)}


def latents_of(answers: Sequence[Answer]) -> np.ndarray:
    """Stack the latents of answers, (questions, steps, hidden size)."""
    return np.stack([np.asarray(answer.latents) for answer in answers])


def tokens_of(answers: Sequence[Answer]) -> list[list[int]]:
    return [answer.token_ids for answer in answers]


def record_calls(intervene: Callable[[range], Any], spans: list[range]) -> Callable[[range], Any]:
    """Note the rows of every batch."""

    def noting(span: range) -> Any:
        spans.append(span)
        return intervene(span)

    return noting
