"""Answer parsers of published benchmarks; use `read_answer`.

    question      a question, and the reading of an answer to it
    videomme  mvbench  tempcompass  mmvu      `official` and `lmms`, one file per benchmark
    option        the option that an answer names
    strict        one careful reader for all benchmarks, and the cut of written reasoning

The same answer gets another mark from another rule, also through the denominator: name the scorer beside each score.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

from storm_hf.errors import ConfigurationError
from storm_hf.evaluation.scorers import mmvu, mvbench, tempcompass, videomme
from storm_hf.evaluation.scorers.question import Question, QuestionKind, Reading
from storm_hf.evaluation.scorers.strict import read_strict, without_reasoning


_Value = TypeVar("_Value")
_Rule = Callable[[Question, str], Reading]
_RULES: dict[str, dict[str, _Rule]] = {
    name: {"official": rules.read_official, "lmms": rules.read_lmms, "strict": read_strict}
    for name, rules in {"mmvu": mmvu, "mvbench": mvbench, "tempcompass": tempcompass, "videomme": videomme}.items()
}
BENCHMARKS = tuple(_RULES)
SCORERS = ("official", "lmms", "strict")


def read_answer(benchmark: str, scorer: str, completion: str, question: Question) -> Reading:
    """Read an answer as a scorer does.

    Args:
        benchmark (`str`):
            `videomme`, `mvbench`, `tempcompass` or `mmvu`.
        scorer (`str`):
            `official` is the benchmark's own rule, `lmms` that of lmms-eval 0.7, `strict` one careful reader for all.
        completion (`str`):
            The answer. Reasoning between `<think>` and `</think>` is cut out first, for each scorer alike.
        question ([`Question`]):
            Question that was asked.

    Returns:
        [`Reading`]: The chosen answer, and whether it is correct; `correct=None` where the rule leaves it to a judge.

    Raises:
        ConfigurationError: If there is no such benchmark or scorer.

    Example:
        ```python
        question = Question("Where is the ball?", ("left", "right"), answer="B")
        read_answer("mvbench", "strict", "(B) right", question).correct  # True
        ```
    """
    rules = _named("benchmark", benchmark, _RULES)
    answer = completion if scorer == "strict" else without_reasoning(completion)
    return _named("scorer", scorer, rules)(question, answer)


def _named(what: str, name: str, known: Mapping[str, _Value]) -> _Value:
    if name not in known:
        raise ConfigurationError(f"Expected a {what} out of {', '.join(sorted(known))} but got {name!r}.")
    return known[name]


__all__ = ["BENCHMARKS", "SCORERS", "Question", "QuestionKind", "Reading", "read_answer"]
