"""Reasoning is no part of an answer: it is cut out before any scorer reads.

The cut is that of lmms-eval 0.7 (`api/reasoning.py`), so that all scorers see what the harness scored. It looks at the case of
letters, leaves a block without an end alone, and keeps what follows an end without a beginning.
"""

_TAGS = (("<think>", "</think>"), ("<analysis>", "</analysis>"))


def without_reasoning(completion: str) -> str:
    """Cut reasoning blocks out of a completion, and the white space around what is left."""
    for start, end in _TAGS:
        completion = _without_blocks(completion, start, end)
        if end in completion and start not in completion:
            completion = completion.rpartition(end)[2]
    return completion.strip()


def _without_blocks(text: str, start: str, end: str) -> str:
    while start in text:
        before, _, rest = text.partition(start)
        _, found, after = rest.partition(end)
        if not found:
            break
        text = before + after
    return text
