"""Rewards, as functions with the signature of TRL's: completions and columns of the rows in, one number for each completion out.

Besides the columns of the data set, the trainer gives `question_style`, `group` (the same number for the completions of a
prompt), `num_latents` (that were thought), `is_ended` (whether the answer came to its end), `has_donor` (whether the row was fed
the latents of another clip), and `donor` (the row of that clip).

`None` means that a reward does not judge a completion; TRL leaves it out.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from storm_hf.errors import ConfigurationError
from storm_hf.evaluation.batch import expected_choice, read_reply
from storm_hf.evaluation.scorers.option import answer_alone, plain
from storm_hf.inputs.conversation import as_text, read_choices, read_options


Rewards: TypeAlias = list[float | None]
RewardFunction: TypeAlias = Callable[..., Rewards]


def correct_answer(completions: Sequence[str], **columns: object) -> Rewards:
    """1 for a correct answer, 0 for another one. Answers from the latents of a donor are not judged."""
    return [
        None if row["has_donor"] else float(is_correct(completion, row))
        for completion, row in zip(completions, _rows(columns, len(completions)), strict=True)
    ]


def answer_format(completions: Sequence[str], **columns: object) -> Rewards:
    """1 for an answer that ends before it is cut off and names exactly one option, or says anything where there are none."""
    rows = _rows(columns, len(completions))
    return [
        float(row["is_ended"] and _named(completion, row) is not None)
        for completion, row in zip(completions, rows, strict=True)
    ]


def latent_price(
    completions: Sequence[str], num_latents: Sequence[int], group: Sequence[int], **columns: object
) -> Rewards:
    """Price of thinking: for a correct answer -(k - mean) / (max - min) of the latents of its group's correct ones, else 0.

    From arXiv 2511.21581. It is zero where all roll-outs of a group think equally long.
    """
    prices: Rewards = [0.0] * len(completions)
    rows = _rows({**columns, "num_latents": num_latents, "group": group}, len(completions))
    correct = [place for place, row in enumerate(rows) if not row["has_donor"] and is_correct(completions[place], row)]
    for number in set(group):
        places = [place for place in correct if group[place] == number]
        lengths = [num_latents[place] for place in places]
        for place in places:
            spread, mean = max(lengths) - min(lengths), sum(lengths) / len(lengths)
            prices[place] = (mean - num_latents[place]) / spread if spread else 0.0
    return prices


def latent_use(completions: Sequence[str], **columns: object) -> Rewards:
    """Use of the latents: 1 for a correct answer from the own latents, and for one that is not from those of a donor.

    Its mean over both is (1 + accuracy with the own latents - accuracy with a donor's) / 2. An answer that the latents do not
    change gets as much as a guess. The answers from a donor's latents have to be sampled and rewarded themselves. Subtracted as
    a number from the reward of another sample, their accuracy would be a baseline, which has no gradient.
    """
    rows = _rows(columns, len(completions))
    return [
        float(is_correct(completion, row) != row["has_donor"])
        for completion, row in zip(completions, rows, strict=True)
    ]


def donor_answer(completions: Sequence[str], **columns: object) -> Rewards:
    """1 for an answer from a donor's latents that is the donor's, so that it is *steered*, else 0. Others are not judged."""
    rows = _rows(columns, len(completions))
    return [
        float(is_correct(completion, {**row, **_answer_of(row["donor"])})) if row["has_donor"] else None
        for completion, row in zip(completions, rows, strict=True)
    ]


REWARDS: dict[str, RewardFunction] = {
    reward.__name__: reward for reward in (correct_answer, answer_format, latent_price, latent_use, donor_answer)
}
OF_DONORS = ("latent_use", "donor_answer")


def find_rewards(names: Sequence[str]) -> list[RewardFunction]:
    """Look rewards up by name.

    Raises:
        ConfigurationError: If there is none of a name.
    """
    if unknown := [name for name in names if name not in REWARDS]:
        raise ConfigurationError(
            f"Expected `rewards` among {', '.join(REWARDS)}, got {unknown[0]!r}. Give a function of your own to the trainer as "
            "`reward_funcs`."
        )
    return [REWARDS[name] for name in names]


def is_correct(completion: str, row: Mapping[str, Any]) -> bool:
    """Compare an answer with that of its row: by the option that it names or, where the question is open, word for word."""
    if read_options(row) or read_choices(row):
        return _named(completion, row) == expected_choice(row)
    return plain(answer_alone(completion)) == plain(as_text(row["answer"], "answer"))


def _named(completion: str, row: Mapping[str, Any]) -> str | None:
    """The option that an answer names; where there are none, all that it says."""
    if read_options(row) or read_choices(row):
        return read_reply(completion, row, row["question_style"])
    return answer_alone(completion) or None


def _answer_of(donor: Mapping[str, Any]) -> dict[str, Any]:
    return {name: donor[name] for name in ("answer", "outcome") if name in donor}


def _rows(columns: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """Turn columns to rows; what is no column, such as the trainer's state, is left out."""
    values = {name: column for name, column in columns.items() if isinstance(column, list | tuple)}
    return [{name: column[place] for name, column in values.items()} for place in range(count)]
