"""LLaVA-style conversations: turns of a person and a model.

What cannot be used raises a [`DatasetError`]; its message is the reason that the row is rejected with.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from storm_hf.annotations.fields import first_of, shown
from storm_hf.errors import DatasetError


_ASKS = ("human", "user")
_ANSWERS = ("gpt", "assistant")
_MARK = re.compile(r"<(?:video|image)>")
_PLACEHOLDERS = re.compile(r"^(?:\s*<(?:video|image)>)+|(?:<(?:video|image)>\s*)+$")


def turns_of(value: Any) -> list[tuple[Any, Any]]:
    """Pair the questions of a conversation with their answers.

    Args:
        value (`Any`):
            A list of turns `{"from": "human", "value": ...}` or `{"role": "user", "content": ...}`, or the same as JSON.

    Returns:
        `list[tuple[Any, Any]]`: Question and answer of each exchange, as the row has them. What a system says is left out.

    Raises:
        DatasetError: If there is no turn, or they do not alternate.
    """
    spoken = [(who, what) for who, what in map(_turn, _list_of(value)) if who != "system"]
    if not spoken:
        raise DatasetError("The conversation has no turn.")
    for index, (who, _) in enumerate(spoken):
        expected = _ANSWERS if index % 2 else _ASKS
        if who not in expected:
            raise DatasetError(
                f"Turn {index + 1} of the conversation should be of {' or '.join(expected)} but is of {shown(who)}."
            )
    if len(spoken) % 2:
        raise DatasetError("The last question of the conversation has no answer.")
    return [(spoken[index][1], spoken[index + 1][1]) for index in range(0, len(spoken), 2)]


def without_placeholders(question: Any) -> Any:
    """Strip the placeholder of the clip from the prompt.

    Raises:
        DatasetError: If there are several, which stand for several clips or pictures.
    """
    if not isinstance(question, str):
        return question
    if (count := len(_MARK.findall(question))) > 1:
        raise DatasetError(f"The question has places for {count} clips or pictures, and an annotation has one clip.")
    return _PLACEHOLDERS.sub("", question)


def _list_of(value: Any) -> Sequence[Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise DatasetError("The conversation should be a list of turns but is text that is no JSON.") from error
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise DatasetError(f"The conversation should be a list of turns but is {shown(value)}.")
    return value


def _turn(turn: Any) -> tuple[Any, Any]:
    if not isinstance(turn, Mapping):
        raise DatasetError(f"A turn of the conversation should say who speaks and what but is {shown(turn)}.")
    said = first_of(turn, ("value", "content"))
    return first_of(turn, ("from", "role")), "" if said is None else said
