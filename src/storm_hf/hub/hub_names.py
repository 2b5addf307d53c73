"""Names on the Hub, told from folders of this machine."""

import re
from pathlib import Path


_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def is_hub_name(text: str | None) -> bool:
    """Whether a text can be the name of a repository: one slash at most, and no folder here that is called so."""
    return bool(text) and _NAME.fullmatch(str(text)) is not None and not Path(str(text)).exists()
