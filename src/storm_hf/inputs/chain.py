"""Steps of a written chain of thought.

A step is a line of the chain. In a chain of one line it is what stands between two numbers that count up from 1, or else a
sentence, which ends in `.`, `!` or `?` before a space. So the chains of all worlds have one step per step of the world.
"""

import re


_LINE_END = re.compile(r"\s*\n\s*")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_NUMBER = re.compile(r"(?<!\S)(?:Step\s+)?(\d{1,2})[.):]\s")


def split_steps(chain: str) -> list[str]:
    """Take a written chain of thought apart into its steps.

    Example:
        ```python
        split_steps("step one ball at red . step two ball at blue .")  # ["step one ball at red .", "step two ball at blue ."]
        split_steps("1. Two cups swap. Red moves. 2. It stops.")  # two steps
        ```
    """
    chain = chain.strip()
    if "\n" in chain:
        return _LINE_END.split(chain)
    if len(starts := _numbered(chain)) > 1:
        ends = [*starts[1:], len(chain)]
        pieces = [chain[: starts[0]], *(chain[start:end] for start, end in zip(starts, ends, strict=True))]
        return [piece.strip() for piece in pieces if piece.strip()]
    return _SENTENCE_END.split(chain) if chain else []


def _numbered(chain: str) -> list[int]:
    """Positions of the numbers that count up from 1."""
    starts: list[int] = []
    for match in _NUMBER.finditer(chain):
        if int(match[1]) == len(starts) + 1:
            starts.append(match.start())
    return starts
