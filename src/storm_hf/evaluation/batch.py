"""Batched answers to the questions of a data set, and their cost: calls of the language model and seconds.

Axes: B batch, K latent steps, D hidden size.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from storm_hf.errors import ConfigurationError
from storm_hf.evaluation.clip_prefix import ClipPrefixes
from storm_hf.evaluation.scorers.option import (
    answer_alone,
    read_labelled,
    read_last,
    read_last_item,
    read_last_letter,
    read_mentioned,
    read_text,
)
from storm_hf.inputs.conversation import as_text, is_filled, read_choices, read_options
from storm_hf.inputs.prompts import PromptEncoder, Row
from storm_hf.inputs.wording import LETTERS, QuestionStyle
from storm_hf.interventions.intervention import Intervention
from storm_hf.interventions.kind import InterventionKind
from storm_hf.model.modeling_storm import StormForConditionalGeneration
from storm_hf.model.rollout_storm import LatentIntervention


@dataclass(frozen=True, eq=False)
class Answer:
    """Answer of a model to one question.

    Args:
        text (`str`):
            The whole answer, without special tokens.
        choice (`str` or `None`):
            The option that the answer names, `None` if it names none.
        latents (`np.ndarray` of shape `(num_latents, hidden_size)`, *optional*):
            The model's own latents.
        token_ids (`list[int]`):
            Generated tokens, the end of the turn included.
        num_latents (`int`, *optional*):
            Number of latents after which the model stopped thinking; None if it was not asked to stop by itself.
    """

    text: str
    choice: str | None
    latents: np.ndarray | None
    token_ids: list[int]
    num_latents: int | None = None


def answer_questions(
    model: StormForConditionalGeneration,
    prompts: PromptEncoder,
    rows: Sequence[Row],
    *,
    max_new_tokens: int = 8,
    batch_size: int = 128,
    intervene: Intervention | Callable[[range], LatentIntervention] | None = None,
    halting: bool | None = False,
    on_batch: Callable[[int], None] | None = None,
    prefixes: ClipPrefixes | None = None,
) -> list[Answer]:
    """Answer the questions of `rows` greedily.

    Args:
        model ([`StormForConditionalGeneration`]):
            The model; it is put into evaluation mode.
        prompts ([`~storm_hf.inputs.prompts.PromptEncoder`]):
            Encodes the questions, with as many latents as it is made for.
        rows (`Sequence`):
            Rows of a storm-thoughts data set.
        max_new_tokens (`int`, *optional*, defaults to `8`):
            Longest answer.
        batch_size (`int`, *optional*, defaults to `128`):
            Questions that are answered together.
        intervene ([`~storm_hf.interventions.intervention.Intervention`] or `Callable`, *optional*):
            Intervention on the latents of `rows`; or a function from the positions of a batch to its `latent_intervention`.
        halting (`bool`, *optional*, defaults to `False`):
            Whether each thought ends when the model's halting head says so. By default all have the same length, so that latents can
            be compared. `None` leaves it to the model, as `generate` does.
        on_batch (`Callable[[int], None]`, *optional*):
            Called with the number of answers after each batch. Progress bars use it.
        prefixes ([`~storm_hf.evaluation.clip_prefix.ClipPrefixes`], *optional*):
            Reads a clip once for the questions about it, which then are the batches: for many questions about few clips. With an
            intervention they are asked one by one. By default every question reads its own clip.

    Raises:
        ConfigurationError: If `batch_size` is not 1 or more.
    """
    model.eval()
    prefixes = None if _is_asked_whole(intervene) else prefixes
    answers: list[Answer] = []
    for span in spans(len(rows), batch_size):
        batch = [rows[index] for index in span]
        answer_of: dict[int, Answer] = {}
        for places, inputs in _inputs(model, prompts, batch, prefixes, 1 if intervene is not None else batch_size):
            meant = {} if "cache" in inputs else _meant_length(prompts, model)
            changes = _intervention_arguments(intervene, span[places[0] : places[-1] + 1])
            arguments = {**meant, **changes, "halting": halting}
            output = generate_greedily(model, prompts, inputs, max_new_tokens, **arguments)
            asked = [batch[place] for place in places]
            found = read_answers(output, inputs["input_ids"].shape[1], prompts, asked)
            answer_of.update(zip(places, found, strict=True))
        answers.extend(answer_of[place] for place in range(len(batch)))
        if on_batch is not None:
            on_batch(len(batch))
    return answers


def _is_asked_whole(intervene: Intervention | Callable[[range], LatentIntervention] | None) -> bool:
    """Check for an intervention that changes or repeats the prompt, not only what is fed."""
    kind = intervene.kind if isinstance(intervene, Intervention) else None
    return kind in (InterventionKind.no_latents, InterventionKind.latents_only)


def _inputs(
    model: StormForConditionalGeneration,
    prompts: PromptEncoder,
    batch: Sequence[Row],
    prefixes: ClipPrefixes | None,
    batch_size: int,
) -> Iterator[tuple[Sequence[int], Mapping[str, Any]]]:
    """Inputs of the model for the rows of a batch, with their places: for all together, or for those about one clip."""
    if prefixes is None:
        yield range(len(batch)), {name: value.to(model.device) for name, value in prompts(batch).items()}
        return
    encoded = [prompts([row]) for row in batch]
    for places in prefixes.batches(encoded, batch_size):
        yield places, prefixes.resume([encoded[place] for place in places])


def _meant_length(prompts: PromptEncoder, model: StormForConditionalGeneration) -> dict[str, int]:
    """Tell `generate` that another K than the model's is meant."""
    config = model.config
    is_other = config.latent_token_id is not None and prompts.num_latents != config.num_latents
    return {"num_latents": prompts.num_latents} if is_other else {}


def _intervention_arguments(
    intervene: Intervention | Callable[[range], LatentIntervention] | None, rows: range
) -> dict[str, Any]:
    if isinstance(intervene, Intervention):
        return intervene.generation_arguments(rows)
    return {} if intervene is None else {"latent_intervention": intervene(rows)}


def accuracy(answers: Sequence[Answer], rows: Sequence[Row]) -> float:
    """Share of answers that name the correct option. An answer that names none is wrong."""
    pairs = zip(answers, rows, strict=True)
    return float(np.mean([answer.choice == expected_choice(row) for answer, row in pairs]))


def spans(length: int, size: int) -> Iterator[range]:
    """Cut positions into runs of one size, the last one shorter.

    Raises:
        ConfigurationError: If the size is not 1 or more.
    """
    if size < 1:
        raise ConfigurationError(f"`batch_size` must be 1 or more, got {size}.")
    return (range(start, min(start + size, length)) for start in range(0, length, size))


def generate_greedily(
    model: StormForConditionalGeneration,
    prompts: PromptEncoder,
    inputs: Mapping[str, Any],
    max_new_tokens: int,
    **arguments: object,
) -> Any:
    """Generate as every answer is generated: greedily, up to the end of the turn, keeping the latents.

    Args:
        model ([`StormForConditionalGeneration`]):
            The model.
        prompts ([`~storm_hf.inputs.prompts.PromptEncoder`]):
            Encoded the questions.
        inputs (`Mapping[str, Any]`):
            Inputs of the model, on its device.
        max_new_tokens (`int`):
            Longest answer.
        arguments:
            What else `generate` takes, such as a `latent_intervention`.

    Returns:
        [`~transformers.generation.GenerateDecoderOnlyOutput`]: What [`read_answers`] reads.
    """
    return model.generate(
        **inputs,
        **arguments,
        **greedy_settings(prompts.processor.tokenizer, max_new_tokens),
        return_dict_in_generate=True,
        output_latents=True,
    )


def greedy_settings(tokenizer: PreTrainedTokenizerBase, max_new_tokens: int) -> dict[str, Any]:
    """Arguments of `generate` for greedy answers up to the end of the turn, whatever the checkpoint's own settings are."""
    return {
        "max_new_tokens": max_new_tokens,
        "do_sample": False,
        "num_beams": 1,
        "num_return_sequences": 1,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def read_answers(output: Any, num_prompt_tokens: int, prompts: PromptEncoder, rows: Sequence[Row]) -> list[Answer]:
    """Read what was generated for some rows.

    Args:
        output ([`~transformers.generation.GenerateDecoderOnlyOutput`]):
            Output of `generate(output_latents=True)`.
        num_prompt_tokens (`int`):
            Columns of the prompt in its sequences.
        prompts ([`~storm_hf.inputs.prompts.PromptEncoder`]):
            Encoded the questions.
        rows (`Sequence`):
            The questions.
    """
    tokenizer = prompts.processor.tokenizer
    new_tokens = output.sequences[:, num_prompt_tokens:]
    texts = tokenizer.batch_decode(new_tokens, skip_special_tokens=True)
    latents = [None] * len(rows) if output.latents is None else output.latents.float().cpu().numpy()
    used = getattr(output, "num_latents_used", None)
    lengths = [None] * len(rows) if used is None else used.tolist()
    token_ids = [up_to_end(row, {tokenizer.eos_token_id}) for row in new_tokens.tolist()]
    return [
        Answer(text.strip(), read_reply(text, row, prompts.question_style), _first(latent, length), tokens, length)
        for text, row, latent, tokens, length in zip(texts, rows, latents, token_ids, lengths, strict=True)
    ]


def _first(latents: np.ndarray | None, length: int | None) -> np.ndarray | None:
    return latents if latents is None or length is None else latents[:length]


def up_to_end(tokens: list[int], ends: Collection[int]) -> list[int]:
    """Cut off what pads a finished answer, behind the first token that ends one."""
    return next((tokens[: place + 1] for place, token in enumerate(tokens) if token in ends), tokens)


def read_option(text: str, options: Sequence[str] | None, style: QuestionStyle | None = "words") -> str | None:
    """Read the option that an answer names; reasoning may come before it.

    Args:
        text (`str`):
            The generated text.
        options (`Sequence[str]`, *optional*):
            The closed set of answers.
        style (`str`, *optional*, defaults to `"words"`):
            Style of the options in the question; with `"letters"` an answer names one by its letter or by its text.

    Returns:
        `str` or `None`: The option, `None` if none is named, or it is denied or stands beside another.
    """
    if options is None or not len(options):
        return None
    said, texts = answer_alone(text), [str(option) for option in options]
    place = _read_letter(said, texts) if style == "letters" else _read_words(said, texts)
    return None if place is None else options[place]


def read_outcome(reply: str, choices: Sequence[str], style: QuestionStyle) -> str | None:
    """Read the choice that a reply names, which may be a word, a letter, a letter with its word, or a sentence.

    Args:
        reply (`str`):
            The generated text.
        choices (`Sequence[str]`):
            The closed set of answers, in the order in which the question lists it; see [`~storm_hf.worlds.Asked`].
        style (`str`):
            Form of the choices in the question. A letter names one only where they have letters.

    Returns:
        `str` or `None`: The choice, `None` if none or several are named, or it is denied.
    """
    if (named := read_option(reply, choices, style)) is not None:
        return named
    said, texts = answer_alone(reply), [str(choice) for choice in choices]
    place = read_mentioned(said, texts, LETTERS[: len(texts)] if style == "letters" else ())
    return None if place is None else choices[place]


def read_reply(text: str, row: Row, style: QuestionStyle | None = "words") -> str | None:
    """Read the option or, in a row whose question is complete, the choice that a reply names.

    Args:
        text (`str`):
            The generated text.
        row (`Mapping`):
            The row. One with `options` has a question in `style`; one without them may have `choices` and a `choice_style`.
        style (`str`, *optional*, defaults to `"words"`):
            Style of the options in the question.
    """
    if options := read_options(row):
        return read_option(text, options, style)
    return read_outcome(text, choices, row["choice_style"]) if (choices := read_choices(row)) else None


def _read_words(said: str, options: Sequence[str]) -> int | None:
    named = read_text(said, options)
    return next(iter(named)) if len(named) == 1 else read_last(said, options)


def _read_letter(said: str, options: Sequence[str]) -> int | None:
    letters = LETTERS[: len(options)]
    place = read_labelled(said, options, letters)
    place = read_last_letter(said, letters) if place is None else place
    return read_last_item(said, options, letters) if place is None else place


def expected_choice(row: Row) -> str:
    """The correct option of a row, or the correct answer where the question is open.

    An answer may have reasoning before the option that it ends with. A row with an `outcome` says it there.
    """
    if is_filled(row, "outcome"):
        return as_text(row["outcome"], "outcome")
    answer = as_text(row["answer"], "answer")
    options = read_options(row)
    return answer if answer in options else read_option(answer, options) or answer


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
    choice = answer.choice or ""
    place = answer.text.lower().rfind(choice.lower()) if choice else -1  # in a sentence, more may follow
    start = place if place >= 0 else len(answer.text) - len(choice)
    texts = (
        processor.tokenizer.decode(answer.token_ids[: count + 1], skip_special_tokens=True).strip()
        for count in range(len(answer.token_ids))
    )
    return next(count for count, text in enumerate(texts) if len(text) > start or len(text) == len(answer.text))
