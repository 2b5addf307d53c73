"""Repository ids of the Hub, distinguished from local folders."""

import re
from pathlib import Path


_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def is_hub_name(text: str | None) -> bool:
    """Return True if a text can be the name of a repository: one slash at most, and no folder of that name here."""
    return bool(text) and _NAME.fullmatch(str(text)) is not None and not Path(str(text)).exists()
