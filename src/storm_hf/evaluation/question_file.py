"""Files of questions about one clip: one a line, or JSON Lines with options."""

import json
from dataclasses import dataclass
from pathlib import Path

from storm_hf.errors import DatasetError


_JSON_LINES = ".jsonl"


@dataclass(frozen=True)
class WrittenQuestion:
    """A question as a file has it.

    Args:
        text (`str`):
            The question.
        options (`tuple[str, ...]`, *optional*):
            The closed set of answers; without it the question is open.
    """

    text: str
    options: tuple[str, ...] = ()


def read_question_file(path: Path) -> list[WrittenQuestion]:
    """Read questions, one of each line that is not empty.

    Args:
        path (`Path`):
            Text, with or without a byte order mark. In a file whose name ends in `.jsonl`, each line is an object with `question`
            and, optionally, `options`.

    Raises:
        DatasetError: If there is no such file, no question in it, or a line has another form; the message names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # `splitlines` knows ends that JSON may hold
    except OSError as error:
        raise DatasetError(
            f"Expected a file of questions, one a line, but {path} cannot be read ({error.strerror})."
        ) from error
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"Expected a file of questions, one a line, but {path} cannot be read: {error}. Write it as UTF-8 text."
        ) from error
    is_json = path.suffix.lower() == _JSON_LINES
    questions = [
        _of_json(line, f"{path}, line {number}") if is_json else WrittenQuestion(line.strip())
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not questions:
        raise DatasetError(f"Expected questions, one a line, but {path} has none. Write at least one.")
    return questions


def _of_json(line: str, place: str) -> WrittenQuestion:
    try:
        given = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{place}: expected a JSON object with `question`, got no JSON: {error}.") from error
    text = given.get("question") if isinstance(given, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise DatasetError(
            f'{place}: expected a JSON object like {{"question": "Who enters?"}}, got {line.strip()[:60]}.'
        )
    if unknown := sorted(set(given) - {"question", "options"}):
        raise DatasetError(
            f"{place}: expected `question` and `options` alone, got {unknown[0]!r} beside them. Leave it out."
        )
    options = [] if given.get("options") is None else given["options"]
    if not isinstance(options, list) or not all(map(_is_text, options)) or len(options) == 1:
        raise DatasetError(f"{place}: expected `options` to be two texts or more, got {json.dumps(options)[:60]}.")
    if len(set(options)) < len(options):
        raise DatasetError(f"{place}: expected `options` that differ, got {json.dumps(options)[:60]}.")
    return WrittenQuestion(_encodable(text.strip()), tuple(map(_encodable, options)))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _encodable(text: str) -> str:
    """Replace halves of characters, which JSON can escape and no tokenizer takes."""
    return text.encode("utf-16", errors="surrogatepass").decode("utf-16", errors="replace")
