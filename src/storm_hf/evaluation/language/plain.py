"""Perplexity of plain text, and answers to plain prompts: no clip, no latent block.

Axes: B batch, S sequence, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from storm_hf.errors import DatasetError
from storm_hf.evaluation.batch import greedy_settings, spans
from storm_hf.inputs.collator import IGNORED_LABEL
from storm_hf.inputs.prompts import PromptEncoder, pad_rows


def perplexity(
    model: PreTrainedModel,
    processing_class: ProcessorMixin | PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    batch_size: int = 8,
    max_length: int = 512,
) -> float:
    """Measure the perplexity of plain texts: the exponential of the mean loss of all their tokens, each of equal weight.

    Every text is read alone, without a chat template, and cut into windows of `max_length` tokens. The first token of a window
    is not predicted. Batches are padded on the right, whatever the tokenizer's side is.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            A STORM, which reads them as its backbone does; a plain backbone; or a plain language model. It is left in the mode
            it came in.
        processing_class ([`~transformers.ProcessorMixin`] or [`~transformers.PreTrainedTokenizerBase`]):
            The model's processor or tokenizer. Control tokens in a text are taken as text.
        texts (`Sequence[str]`):
            Plain texts, such as paragraphs.
        batch_size (`int`, *optional*, defaults to `8`):
            Windows that are read together.
        max_length (`int`, *optional*, defaults to `512`):
            Longest window, in tokens.

    Raises:
        DatasetError: If no text has two tokens.
    """
    windows = tokenize_plainly(processing_class, texts, max_length)
    windows = sorted(windows, key=len)  # little padding
    total, num_tokens = 0.0, sum(len(window) - 1 for window in windows)
    with evaluating(model), torch.no_grad():
        for span in spans(len(windows), batch_size):
            total += _summed_loss(model, windows[span.start : span.stop])
    return float(torch.tensor(total / num_tokens, dtype=torch.float64).exp())


def tokenize_plainly(
    processing_class: ProcessorMixin | PreTrainedTokenizerBase, texts: Sequence[str], max_length: int = 512
) -> list[torch.Tensor]:
    """Tokenize plain texts into windows of two to `max_length` tokens. Arguments and errors as in [`perplexity`]."""
    tokenizer = getattr(processing_class, "tokenizer", processing_class)
    encoded = [torch.tensor(tokenizer.encode(text, split_special_tokens=True)) for text in texts]
    windows = [window for ids in encoded for window in ids.split(max_length) if len(window) > 1]
    if not windows:
        raise DatasetError(f"Expected texts of two tokens or more, got {len(texts)} without. Give some plain text.")
    return windows


def _summed_loss(model: PreTrainedModel, windows: Sequence[torch.Tensor]) -> float:
    """Sum the losses of all tokens of a batch but the first of each window."""
    input_ids = pad_rows(windows, 0, side="right").to(model.device)  # (B, S); what pads is masked
    mask = pad_rows([torch.ones_like(window) for window in windows], 0, side="right").to(model.device)
    logits = model(input_ids=input_ids, attention_mask=mask, use_cache=False).logits  # (B, S, V)
    labels = input_ids.masked_fill(mask == 0, IGNORED_LABEL)[:, 1:]
    loss = cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels.flatten(), reduction="sum")
    return float(loss)


def answer_plainly(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    prompts: Sequence[str],
    max_new_tokens: int = 48,
    *,
    batch_size: int = 32,
    on_batch: Callable[[int], None] | None = None,
) -> list[str]:
    """Answer plain prompts greedily, through the chat template, at once and without a clip.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            A STORM, or a plain backbone. It is left in the mode it came in.
        processor ([`~transformers.ProcessorMixin`]):
            Its processor.
        prompts (`Sequence[str]`):
            Questions and instructions, one text each. Control tokens in them are taken as text.
        max_new_tokens (`int`, *optional*, defaults to `48`):
            Longest answer; a longer one is cut off.
        batch_size (`int`, *optional*, defaults to `32`):
            Prompts that are answered together. Answers are those that each gets alone.
        on_batch (`Callable[[int], None]`, *optional*):
            Called with the number of answers after each batch.
    """
    encoder = PromptEncoder(processor, model.config, num_latents=0)
    answers: list[str] = []
    with evaluating(model):
        for span in spans(len(prompts), batch_size):
            answers += _answer_batch(model, encoder, prompts[span.start : span.stop], max_new_tokens)
            if on_batch is not None:
                on_batch(len(span))
    return answers


def _answer_batch(
    model: PreTrainedModel, encoder: PromptEncoder, prompts: Sequence[str], max_new_tokens: int
) -> list[str]:
    inputs = {name: value.to(model.device) for name, value in encoder([{"prompt": text} for text in prompts]).items()}
    tokenizer = encoder.processor.tokenizer
    thinks = getattr(model.config, "latent_token_id", None) is not None
    sequences = model.generate(
        **inputs, **({"num_latents": 0} if thinks else {}), **greedy_settings(tokenizer, max_new_tokens)
    )
    new_tokens = sequences[:, inputs["input_ids"].shape[1] :]
    return [text.strip() for text in tokenizer.batch_decode(new_tokens, skip_special_tokens=True)]


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Put a model into evaluation mode for a while."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
