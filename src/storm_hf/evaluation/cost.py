"""Cost of an answer: calls of the language model, which do not depend on the machine, and seconds, which do."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedModel, ProcessorMixin

from storm_hf.evaluation.batch import Answer, answer_questions
from storm_hf.inputs.prompts import PromptEncoder, Row
from storm_hf.model.modeling_storm import StormForConditionalGeneration


@dataclass(frozen=True)
class AnswerCost:
    """Cost of one answer, measured on single questions.

    Args:
        forward_passes (`float`):
            Mean number of calls of the language model until the first token of the answer word, prefill included.
        seconds (`float`):
            Median wall seconds for a whole answer.
    """

    forward_passes: float
    seconds: float


def measure_cost(
    model: StormForConditionalGeneration, prompts: PromptEncoder, rows: Sequence[Row], *, max_new_tokens: int = 8
) -> AnswerCost:
    """Count language-model calls and take the time of answering `rows` one by one. Arguments as in `answer_questions`."""
    passes, seconds = [], []
    for row in rows:
        started = time.perf_counter()
        with counted_passes(model) as calls:
            answer = answer_questions(model, prompts, [row], max_new_tokens=max_new_tokens)[0]
        seconds.append(time.perf_counter() - started)
        prefill = passes_until_first_token(len(calls), len(answer.token_ids))
        passes.append(prefill + tokens_before_answer(answer, prompts.processor))
    return AnswerCost(float(np.mean(passes)), float(np.median(seconds)))


@contextmanager
def counted_passes(model: PreTrainedModel) -> Iterator[list[None]]:
    """Yield a list that grows by one with each call of the language model."""
    calls: list[None] = []
    hook = model.get_decoder().register_forward_hook(lambda *_: calls.append(None))
    try:
        yield calls
    finally:
        hook.remove()


def passes_until_first_token(num_passes: int, num_tokens: int) -> int:
    """Number of calls before the first generated token: each token after it costs one."""
    return num_passes - (num_tokens - 1)


def tokens_before_answer(answer: Answer, processor: ProcessorMixin) -> int:
    """Number of generated tokens before the first one of the answer word: the written reasoning."""
    start = len(answer.text) - len(answer.choice or "")
    texts = (
        processor.tokenizer.decode(answer.token_ids[: count + 1], skip_special_tokens=True).strip()
        for count in range(len(answer.token_ids))
    )
    return next(count for count, text in enumerate(texts) if len(text) > start or len(text) == len(answer.text))
