"""What all cards share: their templates, the paper, and how it is cited. An unknown value is an absent line, never a placeholder."""

from importlib.resources import files


PAPER = "2605.26014"
CITATION = f"""```bibtex
@misc{{storm2026,
    title = {{STORM: Internalized Modeling for Spatial-Temporal Reasoning in Video-Language Models}},
    eprint = {{{PAPER}}},
    archivePrefix = {{arXiv}},
    year = {{2026}}
}}
```"""


def template(name: str) -> str:
    """Read the template of a card.

    Args:
        name (`str`):
            `"model_card"`, `"dataset_card"` or `"space_card"`.
    """
    return files("storm_hf.hub").joinpath(f"templates/{name}.md").read_text(encoding="utf-8")
