"""Which clips may be published, by the licence of each row."""

import re
from dataclasses import dataclass


# Families of licences that let others pass a work on, cut or changed. A version number at their end does not matter.
REDISTRIBUTABLE = frozenset(
    {
        "apache",
        "bsd-2-clause",
        "bsd-3-clause",
        "cc-by",
        "cc-by-nc",
        "cc-by-nc-sa",
        "cc-by-sa",
        "cc0",
        "mit",
        "odc-by",
        "pddl",
        "public-domain",
        "unlicense",
    }
)
_VERSION = re.compile(r"-v?\d+(\.\d+)*$")


def license_family(name: str) -> str:
    """The name of a licence without its version: `"CC BY 4.0"` is `"cc-by"`."""
    return _VERSION.sub("", re.sub(r"[\s_]+", "-", name.strip().lower()))


@dataclass(frozen=True)
class LicenseRule:
    """Says whether a video with a licence may be published. What it does not know it withholds.

    Args:
        allowed (`frozenset[str]`, *optional*):
            Further licences that allow it, such as one that the owner of the clips gave you.
        denied (`frozenset[str]`, *optional*):
            Licences whose videos are withheld, whatever else says.
    """

    allowed: frozenset[str] = frozenset()
    denied: frozenset[str] = frozenset()

    def permits(self, *names: str) -> bool:
        """Whether all of these licences let a video be passed on."""
        families = {license_family(name) for name in names}
        denied = {license_family(name) for name in self.denied}
        allowed = REDISTRIBUTABLE | {license_family(name) for name in self.allowed}
        return not families & denied and families <= allowed
