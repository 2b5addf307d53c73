"""Parts that all cards share: templates, paper and citation. An unknown value is an absent line, never a placeholder."""

import re
from importlib.resources import files
from typing import Any


PAPER = "2605.26014"
CITATION = f"""```bibtex
@misc{{storm2026,
    title = {{STORM: Internalized Modeling for Spatial-Temporal Reasoning in Video-Language Models}},
    eprint = {{{PAPER}}},
    archivePrefix = {{arXiv}},
    year = {{2026}}
}}
```"""

_LONGEST_CELL = 200
_MARKUP = re.compile(r"([\\`|\[\]*~$])")


def template(name: str) -> str:
    """Read the template of a card.

    Args:
        name (`str`):
            `"model_card"`, `"dataset_card"` or `"space_card"`.
    """
    return files("storm_hf.hub").joinpath(f"templates/{name}.md").read_text(encoding="utf-8")


def in_one_line(text: str) -> str:
    """Make text fit for code in a card: one line, without backticks and control characters."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).replace("`", "'").split())


def as_words(content: Any) -> Any:
    """Escape the texts of JSON content, so that a card shows them as they are: one line each, and no markup of theirs.

    Args:
        content (`Any`):
            Texts, lists and tables of them, names of fields too, and other values, which stay.
    """
    if isinstance(content, dict):
        return {as_words(name): as_words(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return type(content)(as_words(value) for value in content)
    if not isinstance(content, str):
        return content
    line = " ".join("".join(each if each.isprintable() else " " for each in content).split())
    line = line if len(line) <= _LONGEST_CELL else line[: _LONGEST_CELL - 1] + "…"
    return _MARKUP.sub(r"\\\1", line.replace("&", "&amp;")).replace("<", "&lt;").replace(">", "&gt;")
