"""Write the published examples of all cards again: `python -m tests.hub.write_cards`, after a template has changed."""

from pathlib import Path

from tests.hub.card_values import published_cards


FOLDER = Path(__file__).parents[2] / "hub_cards"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in published_cards().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
