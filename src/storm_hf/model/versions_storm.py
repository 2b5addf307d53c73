"""Versions of transformers that the code of a checkpoint was tested with.

Minor versions of transformers rename arguments of every model's forward pass, so a version that was never tested is named when
the code is loaded: an older one in an error, a newer one in a warning.
"""

import logging
import re

import transformers

from .errors_storm import VersionError


OLDEST, NEWEST = (
    (5, 24),
    (5, 24),
)  # the range of pyproject.toml; `make test` runs the one, `make test-latest` the other

logger = logging.getLogger(__name__)


def check_transformers(version: str = transformers.__version__) -> None:
    """Refuse a transformers that is too old for this code, and warn of one that it was not tested with.

    Args:
        version (`str`, *optional*):
            Version of transformers. By default the installed one.

    Raises:
        VersionError: If it is older than the oldest supported one.
    """
    found = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if found < OLDEST:
        raise VersionError(
            f"STORM needs transformers {_shown(OLDEST)} or newer, got {version}. Run `pip install --upgrade "
            f"'transformers>={_shown(OLDEST)}'`."
        )
    if found > NEWEST:
        logger.warning(
            "STORM was tested with transformers up to %s, and this is %s, whose forward passes may differ. If loading fails or "
            "answers look wrong, run `pip install 'transformers==%s.*'`.",
            _shown(NEWEST),
            version,
            _shown(NEWEST),
        )


def _shown(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
