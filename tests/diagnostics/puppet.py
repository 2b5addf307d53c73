"""Artificial models for which the outcome is known: one that answers from its latents, one that ignores them.

Both see a real prompt and run the real loop. Only what the latents hold and what is said is decided here: the latent of each step is
the code of the right answer of its row, and the word that is said is read off the last latent that was fed, or is right anyway.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.diagnostics.thinker import NUM_LATENTS, WORLD, Thinker, make_thinker

from storm_hf.diagnostics.questions import Questions
from storm_hf.evaluation.thought_gallery import unit_vectors


@dataclass
class Puppet:
    """A thinker on strings."""

    thinker: Thinker
    questions: Questions
    codes: np.ndarray  # (M options, D)

    @contextmanager
    def thinking(self, *, uses_latents: bool) -> Iterator["Puppet"]:
        """Pull the strings: all questions must be asked in one batch."""
        model = self.thinker.model
        state = _Strings(self, uses_latents)
        hooks = [
            model.model.latent_projector.register_forward_hook(state.think),
            model.backbone.base_model.register_forward_pre_hook(state.listen, with_kwargs=True),
            model.get_decoder().register_forward_pre_hook(state.see, with_kwargs=True),
            model.get_output_embeddings().register_forward_hook(state.say),
        ]
        try:
            yield self
        finally:
            for hook in hooks:
                hook.remove()


class _Strings:
    def __init__(self, puppet: Puppet, uses_latents: bool) -> None:
        rows, tokenizer = puppet.questions.rows, puppet.thinker.processor.tokenizer
        self.codes = torch.from_numpy(puppet.codes)
        self.right = torch.tensor([WORLD.options.index(row["answer"]) for row in rows])
        self.words = torch.tensor(
            [tokenizer(option, add_special_tokens=False)["input_ids"][0] for option in WORLD.options]
        )
        self.end, self.uses_latents = tokenizer.eos_token_id, uses_latents
        self.latent = puppet.thinker.model.config.latent_token_id
        self.fed: torch.Tensor | None = None
        self.has_spoken, self.reads_latents = False, False

    def think(self, module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        noise = 0.1 * torch.randn(output.shape, generator=torch.Generator().manual_seed(len(output)))
        codes = self.codes[self.right[: len(output)]]
        return (codes if output.ndim == 2 else codes[:, None]) + noise  # (B, D) of a step, or (B, K, D) of given ones

    def listen(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        ids = kwargs["input_ids"]
        self.reads_latents = bool((ids == self.latent).any())
        if not self.reads_latents and ids.shape[1] > 1:
            self.fed = None
        self.has_spoken = bool(torch.isin(ids[:, -1], self.words).all())

    def see(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if self.reads_latents:  # a step, or a prompt with given latents, which ends in the end token
            embeds = kwargs["inputs_embeds"]
            self.fed = embeds[:, -1 if embeds.shape[1] == 1 else -2].float()

    def say(self, module: Any, inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        chosen = self.right[: len(logits)]
        if self.uses_latents:
            chosen = torch.zeros_like(chosen) if self.fed is None else (self.fed @ self.codes.T).argmax(dim=1)
        said = torch.full_like(logits, -5.0)
        words = torch.full_like(chosen, self.end) if self.has_spoken else self.words[chosen]
        said[torch.arange(len(said)), -1, words] = 5.0
        return said


def make_puppet(folder: Path, num_rows: int = 60) -> Puppet:
    """Build a thinker and questions with states, true thoughts and a simulator."""
    thinker = make_thinker(folder, num_rows)
    rows = [{**row, "seed": seed} for seed, row in enumerate(thinker.rows)]
    size = thinker.model.config.hidden_size
    codes = unit_vectors(np.random.default_rng(0).normal(size=(len(WORLD.options), size))) * size**0.5
    states = np.array([row["states"] for row in rows])
    targets = codes[np.vectorize(WORLD.options.index)(states)].astype(np.float32)  # (N, K, D)
    assert targets.shape == (num_rows, NUM_LATENTS, size)
    return Puppet(thinker, Questions(rows, targets, states, WORLD, {}), codes.astype(np.float32))
