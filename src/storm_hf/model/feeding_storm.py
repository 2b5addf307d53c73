"""Feeding latents: the backbone reads the ids of the placeholders, and its token embedding answers with latents.

So the backbone keeps its `input_ids`, by which it finds its video tokens and looks up further embeddings of its own. Fed as
`inputs_embeds`, a prompt with pixels would have its video tokens searched among the embeddings, where noise (NEFTune) hides them and
rows of zeros look like them.

Axes: B batch, S sequence, K latent steps, D hidden size.
"""

import threading
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn

from .errors_storm import BackboneError


class feeding_latents:  # noqa: N801 (a context manager, used like a function)
    """While it is open, the token embedding of a sequence has latents in the place of its placeholders.

    The hook is the last one of the embedding, so noise that another one adds to tokens does not reach the latents.

    Args:
        embedding (`nn.Module`):
            The backbone's token embedding.
        sequence_shape (`tuple[int, int]`):
            B and S of the ids that are read. The embedding of anything else is left alone.
        start (`int`):
            Column of the first latent.
        embeds (`torch.Tensor` of shape `(batch_size, num_latents, hidden_size)`):
            Input embeddings to feed; cast to the dtype of the tokens beside it.

    Raises:
        BackboneError: If the ids were never embedded, so that nothing was fed.
    """

    def __init__(
        self, embedding: nn.Module, sequence_shape: tuple[int, int], start: int, embeds: torch.Tensor
    ) -> None:
        self.embedding, self.sequence_shape = embedding, sequence_shape
        self.start, self.embeds = start, embeds
        self.thread = threading.get_ident()  # a model may serve several at a time
        self.was_fed = False

    def __enter__(self) -> Self:
        self.hook = self.embedding.register_forward_hook(self._put)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hook.remove()
        if error is None and not self.was_fed:
            raise BackboneError(
                "Expected the backbone to embed its `input_ids` with what `get_input_embeddings()` gives, where latents are put "
                f"in, but it never called this {type(self.embedding).__name__}. Use another backbone."
            )

    def _put(self, module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor | None:
        if tuple(output.shape[:-1]) != self.sequence_shape or threading.get_ident() != self.thread:
            return None
        self.was_fed = True
        stop = self.start + self.embeds.shape[1]
        return torch.cat([output[:, : self.start], self.embeds.to(output), output[:, stop:]], dim=1)  # (B, S, D)
