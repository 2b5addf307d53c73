"""The card of a Space: a page on which a checkpoint is asked."""

from typing import Any

from huggingface_hub import SpaceCard, SpaceCardData

from storm_hf.hub.cards import CITATION, PAPER, template


def space_card(
    name: str, *, model: str, gradio_version: str, python_version: str | None = None, license_name: str | None = None
) -> SpaceCard:
    """Render the card.

    Args:
        name (`str`):
            Name of the Space.
        model (`str`):
            Name of the checkpoint on the Hub that is asked.
        gradio_version (`str`):
            The version of Gradio that the page was tried with.
        python_version (`str`, *optional*):
            The version of Python that it needs.
        license_name (`str`, *optional*):
            Licence of the Space.
    """
    title = name.rpartition("/")[2]
    optional: dict[str, Any] = {"python_version": python_version, "license": license_name}
    return SpaceCard.from_template(
        SpaceCardData(
            title=title,
            sdk="gradio",
            sdk_version=gradio_version,
            app_file="app.py",
            models=[model],
            tags=["storm", "video", "latent-reasoning"],
            **{key: value for key, value in optional.items() if value is not None},
        ),
        template_str=template("space_card"),
        title=title,
        model=model,
        paper=PAPER,
        citation=CITATION,
    )
