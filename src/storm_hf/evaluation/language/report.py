"""Language of a model, and of a model before and after training, as records and as JSON."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from transformers import PreTrainedModel, ProcessorMixin

from storm_hf.errors import CheckpointError, DatasetError
from storm_hf.evaluation.bootstrap import Interval, wilson_interval
from storm_hf.evaluation.language.agreement import same_answer
from storm_hf.evaluation.language.plain import answer_plainly, perplexity, tokenize_plainly
from storm_hf.evaluation.language.texts import read_held_out_prompts, read_held_out_texts


@dataclass(frozen=True)
class LanguageMeasure:
    """Plain language of one model.

    Args:
        model (`str`):
            Folder or name of the model.
        perplexity (`float`):
            Perplexity of the plain texts.
        num_tokens (`int`):
            Number of tokens of the texts.
        texts (`str`):
            Fingerprint of the texts: the first 16 digits of their SHA-256.
        prompts (`tuple[str, ...]`):
            Plain prompts, in the order in which they were asked.
        answers (`tuple[str, ...]`):
            Greedy answer to each.
        max_new_tokens (`int`):
            Longest answer.
    """

    model: str
    perplexity: float
    num_tokens: int
    texts: str
    prompts: tuple[str, ...]
    answers: tuple[str, ...]
    max_new_tokens: int

    def to_json(self) -> str:
        """Write the measure as JSON, in the order of the fields."""
        return _as_json(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            DatasetError: If the text is something else.
        """
        return cls._from_mapping(_read_json(text))

    def require(self, **values: object) -> None:
        """Refuse a measure that cannot be compared with another one.

        Args:
            values:
                Fields that have to agree, with the values of the other measure.

        Raises:
            DatasetError: If one of them differs.
        """
        if others := [name for name, value in values.items() if getattr(self, name) != value]:
            raise DatasetError(
                f"Expected two measures over the same texts and prompts, but {' and '.join(others)} differ. Measure both models "
                "with the same files, and with the same tokenizer."
            )

    @classmethod
    def _from_mapping(cls, values: Mapping[str, Any]) -> Self:
        try:
            lists = {name: tuple(map(str, values[name])) for name in ("prompts", "answers")}
            return cls(**{**values, **lists})
        except (KeyError, TypeError) as error:
            raise DatasetError(_NO_RECORD) from error


_NO_RECORD = "Expected the JSON of a measure of language, got something else. Write it with `storm language`."


@dataclass(frozen=True)
class AnswerPair:
    """Answers to one prompt before and after training.

    Args:
        prompt (`str`):
            The prompt.
        before (`str`):
            Answer before training.
        after (`str`):
            Answer after it.
        is_same (`bool`):
            Outcome of [`same_answer`].
    """

    prompt: str
    before: str
    after: str
    is_same: bool


@dataclass(frozen=True)
class LanguageReport:
    """Plain language of a model before and after training.

    Args:
        before ([`LanguageMeasure`]):
            Measure of the model before.
        after ([`LanguageMeasure`]):
            Measure of the model after, over the same texts and prompts.

    Raises:
        DatasetError: If the two were measured over other texts, with other prompts or lengths of answers.
    """

    before: LanguageMeasure
    after: LanguageMeasure

    def __post_init__(self) -> None:
        names = ("texts", "num_tokens", "prompts", "max_new_tokens")
        self.before.require(**{name: getattr(self.after, name) for name in names})

    @property
    def perplexity_ratio(self) -> float:
        """Perplexity after, divided by the one before: 1.05 is five per cent more."""
        return self.after.perplexity / self.before.perplexity

    @property
    def pairs(self) -> list[AnswerPair]:
        """The answers to each prompt, side by side."""
        triples = zip(self.before.prompts, self.before.answers, self.after.answers, strict=True)
        return [AnswerPair(*each, same_answer(each[1], each[2], each[0])) for each in triples]

    @property
    def kept(self) -> Interval:
        """Share of prompts that are answered as before, with its 95 % interval (Wilson)."""
        num_same, num_prompts = sum(pair.is_same for pair in self.pairs), len(self.before.prompts)
        return Interval(num_same / num_prompts, *wilson_interval(num_same / num_prompts, num_prompts))

    def to_json(self) -> str:
        """Write both measures and what follows from them as JSON."""
        derived = {
            "perplexity_ratio": self.perplexity_ratio,
            "kept": asdict(self.kept),
            "pairs": [asdict(pair) for pair in self.pairs],
        }
        return _as_json({**derived, **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote; what follows from the measures is computed anew.

        Raises:
            DatasetError: If the text is something else.
        """
        values = _read_json(text)
        if not {"before", "after"} <= set(values):
            raise DatasetError(_NO_RECORD)
        before, after = (LanguageMeasure._from_mapping(values[name]) for name in ("before", "after"))
        return cls(before, after)


def measure_language(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    *,
    texts: Sequence[str] | None = None,
    prompts: Sequence[str] | None = None,
    name: str = "",
    max_new_tokens: int = 48,
    batch_size: int = 8,
    on_batch: Callable[[int], None] | None = None,
) -> LanguageMeasure:
    """Measure the perplexity of plain text and answer plain prompts, without latents and without a clip.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            A STORM, or a plain backbone.
        processor ([`~transformers.ProcessorMixin`]):
            Its processor.
        texts (`Sequence[str]`, *optional*):
            Plain texts, by default those of [`read_held_out_texts`].
        prompts (`Sequence[str]`, *optional*):
            Plain prompts, by default those of [`read_held_out_prompts`].
        name (`str`, *optional*):
            Name of the model in the record.
        max_new_tokens (`int`, *optional*, defaults to `48`):
            Longest answer.
        batch_size (`int`, *optional*, defaults to `8`):
            Texts, and prompts, that are read together.
        on_batch (`Callable[[int], None]`, *optional*):
            Called with the number of answers after each batch.

    Raises:
        CheckpointError: If the perplexity is no finite number, as that of a model whose weights are not.
        DatasetError: If there is no prompt, or no text of two tokens.
    """
    texts = read_held_out_texts() if texts is None else texts
    prompts = read_held_out_prompts() if prompts is None else prompts
    if not prompts:
        raise DatasetError(
            "Expected a plain prompt or more, got none. Leave `prompts` out to ask those of the package."
        )
    found = perplexity(model, processor, texts, batch_size=batch_size)
    if not math.isfinite(found):
        raise CheckpointError(
            f"The perplexity of {name or 'the model'} is {found}: its weights have diverged. Take an earlier one."
        )
    answers = answer_plainly(model, processor, prompts, max_new_tokens, batch_size=batch_size, on_batch=on_batch)
    num_tokens = sum(map(len, tokenize_plainly(processor, texts)))
    return LanguageMeasure(name, found, num_tokens, fingerprint(texts), tuple(prompts), tuple(answers), max_new_tokens)


def fingerprint(texts: Sequence[str]) -> str:
    """Name texts by the first 16 digits of their SHA-256."""
    return hashlib.sha256("\n\n".join(texts).encode()).hexdigest()[:16]


def _as_json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _read_json(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise DatasetError(_NO_RECORD) from error
    if not isinstance(values, dict):
        raise DatasetError(_NO_RECORD)
    return values
