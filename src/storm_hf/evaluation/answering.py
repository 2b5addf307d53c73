"""Let a model answer the questions of a data set, batch by batch, and count what it cost.

Axes: B batch, K latent steps, D hidden size.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import ProcessorMixin

from storm_hf.model.modeling_storm import StormForConditionalGeneration
from storm_hf.model.rollout_storm import LatentIntervention
from storm_hf.training.prompts import PromptEncoder, Row
from storm_hf.worlds.question import QuestionStyle, format_answer


@dataclass(frozen=True, eq=False)
class Answer:
    """What a model said to one question.

    Args:
        text (`str`):
            The whole answer, without special tokens.
        choice (`str` or `None`):
            The option that the answer names, `None` if it names none.
        latents (`np.ndarray` of shape `(num_latents, hidden_size)`, *optional*):
            The model's own latents.
        token_ids (`list[int]`):
            Generated tokens, the end of the turn included.
    """

    text: str
    choice: str | None
    latents: np.ndarray | None
    token_ids: list[int]


def answer_questions(
    model: StormForConditionalGeneration,
    prompts: PromptEncoder,
    rows: Sequence[Row],
    *,
    max_new_tokens: int = 8,
    batch_size: int = 128,
    intervene: Callable[[range], LatentIntervention] | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> list[Answer]:
    """Answer the questions of `rows` greedily.

    Args:
        model ([`StormForConditionalGeneration`]):
            The model; it is put into evaluation mode.
        prompts ([`~storm_hf.training.prompts.PromptEncoder`]):
            Encodes the questions, with as many latents as it is made for.
        rows (`Sequence`):
            Rows of a storm-thoughts data set.
        max_new_tokens (`int`, *optional*, defaults to `8`):
            Longest answer.
        batch_size (`int`, *optional*, defaults to `128`):
            Questions that are answered together.
        intervene (`Callable[[range], LatentIntervention]`, *optional*):
            Makes the intervention for a batch, given the positions of its rows in `rows`.
        on_batch (`Callable[[int], None]`, *optional*):
            Called with the number of answers after each batch. Progress bars use it.
    """
    model.eval()
    answers: list[Answer] = []
    for span in _spans(len(rows), batch_size):
        batch = [rows[index] for index in span]
        intervention = None if intervene is None else intervene(span)
        answers.extend(_answer_batch(model, prompts, batch, max_new_tokens, intervention))
        if on_batch is not None:
            on_batch(len(batch))
    return answers


def accuracy(answers: Sequence[Answer], rows: Sequence[Row]) -> float:
    """Share of answers that name the right option. An answer that names none is wrong."""
    return float(np.mean([answer.choice == row["answer"] for answer, row in zip(answers, rows, strict=True)]))


def _spans(length: int, size: int) -> Iterator[range]:
    return (range(start, min(start + size, length)) for start in range(0, length, size))


def _answer_batch(
    model: StormForConditionalGeneration,
    prompts: PromptEncoder,
    rows: Sequence[Row],
    max_new_tokens: int,
    intervention: LatentIntervention | None,
) -> list[Answer]:
    inputs = {name: value.to(model.device) for name, value in prompts(rows).items()}
    tokenizer = prompts.processor.tokenizer
    arguments: dict[str, Any] = dict(inputs)
    output: Any = model.generate(
        **arguments,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        return_dict_in_generate=True,
        output_latents=True,
        latent_intervention=intervention,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return read_answers(output, inputs["input_ids"].shape[1], prompts, rows)


def read_answers(output: Any, num_prompt_tokens: int, prompts: PromptEncoder, rows: Sequence[Row]) -> list[Answer]:
    """Read what was generated for some rows.

    Args:
        output ([`~transformers.generation.GenerateDecoderOnlyOutput`]):
            What `generate(output_latents=True)` returned.
        num_prompt_tokens (`int`):
            Columns of the prompt in its sequences.
        prompts ([`~storm_hf.training.prompts.PromptEncoder`]):
            Encoded the questions.
        rows (`Sequence`):
            The questions.
    """
    tokenizer = prompts.processor.tokenizer
    new_tokens = output.sequences[:, num_prompt_tokens:]
    texts = tokenizer.batch_decode(new_tokens, skip_special_tokens=True)
    latents = [None] * len(rows) if output.latents is None else output.latents.float().cpu().numpy()
    token_ids = [_up_to_end(row, tokenizer.eos_token_id) for row in new_tokens.tolist()]
    return [
        Answer(text.strip(), read_option(text, row.get("options"), prompts.question_style), latent, tokens)
        for text, row, latent, tokens in zip(texts, rows, latents, token_ids, strict=True)
    ]


def _up_to_end(tokens: list[int], end: int) -> list[int]:
    """Cut off what pads a finished answer."""
    return tokens[: tokens.index(end) + 1] if end in tokens else tokens


def read_option(text: str, options: Sequence[str] | None, style: QuestionStyle = "words") -> str | None:
    """Read the option that an answer ends with; what comes before it is reasoning.

    Args:
        text (`str`):
            The generated text.
        options (`Sequence[str]`, *optional*):
            The closed set of answers.
        style (`str`, *optional*, defaults to `"words"`):
            How the question named them; with `"letters"` the answer is the letter of one.

    Returns:
        `str` or `None`: The option whose words, or whose letter, come last. The longest, where one option ends in another.
    """
    if options is None or not len(options):
        return None
    said = list(options) if style != "letters" else [format_answer(option, options, style) for option in options]
    words = text.replace(".", " ").split()
    parts = [name.replace(".", " ").split() for name in said]
    named = [index for index, part in enumerate(parts) if part and words[-len(part) :] == part]
    return options[max(named, key=lambda index: len(parts[index]))] if named else None


@dataclass(frozen=True)
class AnswerCost:
    """What one answer costs, measured on single questions.

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
    calls: list[int] = []
    hook = model.get_decoder().register_forward_hook(lambda *_: calls.append(1))
    for row in rows:
        calls.clear()
        started = time.perf_counter()
        answer = _answer_batch(model.eval(), prompts, [row], max_new_tokens, None)[0]
        seconds.append(time.perf_counter() - started)
        prefill = len(calls) - (len(answer.token_ids) - 1)  # every token after the first costs one call
        passes.append(prefill + tokens_before_answer(answer, prompts.processor))
    hook.remove()
    return AnswerCost(float(np.mean(passes)), float(np.median(seconds)))


def tokens_before_answer(answer: Answer, processor: ProcessorMixin) -> int:
    """Number of generated tokens before the first one of the answer word: the written reasoning."""
    start = len(answer.text) - len(answer.choice or "")
    texts = (
        processor.tokenizer.decode(answer.token_ids[: count + 1], skip_special_tokens=True).strip()
        for count in range(len(answer.token_ids))
    )
    return next(count for count, text in enumerate(texts) if len(text) > start or len(text) == len(answer.text))
