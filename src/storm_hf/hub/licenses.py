"""Licences: which clips may be published by that of each row, and how the Hub names them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass


# Families of licences that let others pass a work on, cut or changed. A version number at their end does not matter.
_REDISTRIBUTABLE = frozenset(
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
# Identifiers that the Hub's validator takes, as its message lists them.
HUB_LICENSES = frozenset(
    [
        "apache-2.0",
        "mit",
        "openrail",
        "bigscience-openrail-m",
        "creativeml-openrail-m",
        "bigscience-bloom-rail-1.0",
        "bigcode-openrail-m",
        "afl-3.0",
        "artistic-2.0",
        "bsl-1.0",
        "bsd",
        "bsd-2-clause",
        "bsd-3-clause",
        "bsd-3-clause-clear",
        "c-uda",
        "cc",
        "cc0-1.0",
        "cc-by-2.0",
        "cc-by-2.5",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc-by-sa-3.0",
        "cc-by-sa-4.0",
        "cc-by-nc-2.0",
        "cc-by-nc-3.0",
        "cc-by-nc-4.0",
        "cc-by-nd-4.0",
        "cc-by-nc-nd-3.0",
        "cc-by-nc-nd-4.0",
        "cc-by-nc-sa-2.0",
        "cc-by-nc-sa-3.0",
        "cc-by-nc-sa-4.0",
        "cdla-sharing-1.0",
        "cdla-permissive-1.0",
        "cdla-permissive-2.0",
        "wtfpl",
        "ecl-2.0",
        "epl-1.0",
        "epl-2.0",
        "etalab-2.0",
        "eupl-1.1",
        "eupl-1.2",
        "agpl-3.0",
        "gfdl",
        "gpl",
        "gpl-2.0",
        "gpl-3.0",
        "lgpl",
        "lgpl-2.1",
        "lgpl-3.0",
        "isc",
        "h-research",
        "intel-research",
        "lppl-1.3c",
        "ms-pl",
        "apple-ascl",
        "apple-amlr",
        "mpl-2.0",
        "odc-by",
        "odbl",
        "openmdw-1.0",
        "openrail++",
        "osl-3.0",
        "postgresql",
        "ofl-1.1",
        "ncsa",
        "unlicense",
        "zlib",
        "pddl",
        "lgpl-lr",
        "deepfloyd-if-license",
        "fair-noncommercial-research-license",
        "llama2",
        "llama3",
        "llama3.1",
        "llama3.2",
        "llama3.3",
        "llama4",
        "grok2-community",
        "gemma",
        "unknown",
        "other",
    ]
)
_SPELLED = {  # other spellings of a licence, without the word for licence
    "bsd-2": "bsd-2-clause",
    "bsd-3": "bsd-3-clause",
    "cc-zero": "cc0-1.0",
    "cc0": "cc0-1.0",
    "expat": "mit",
}
_WORDS = (  # of the long names of Creative Commons
    ("creative-commons-zero", "cc0"),
    ("creative-commons", "cc"),
    ("attribution", "by"),
    ("non-?commercial", "nc"),
    ("no-?derivatives|no-?derivs", "nd"),
    ("share-?alike", "sa"),
)
_LICENSE_NAME_LENGTH = 64
_VERSION = re.compile(r"-v?\d+(\.\d+)*$")


def _license_family(name: str) -> str:
    """The name of a licence without its version: `"CC BY 4.0"` is `"cc-by"`."""
    return _VERSION.sub("", re.sub(r"[\s_]+", "-", name.strip().lower()))


def hub_license(name: str) -> dict[str, str]:
    """Name a licence in the metadata of a card, as the Hub takes it.

    Args:
        name (`str`):
            The licence, spelled in any way.

    Returns:
        `dict[str, str]`: `license`; where the Hub does not list it, `"other"` and the `license_name`.
    """
    slug = re.sub(r"[^a-z0-9.+]+", "-", name.lower()).strip("-.")
    short = re.sub(r"^the-|\blicen[cs]e\b|-(?:international|unported|universal)$|\bversion\b|\bv(?=\d)", "", slug)
    short = re.sub(r"-{2,}", "-", short).strip("-")
    for words, letters in _WORDS:
        short = re.sub(rf"\b(?:{words})\b", letters, short)
    for spelled in (slug, short, f"{short}.0", _SPELLED.get(short, "")):
        if spelled in HUB_LICENSES:
            return {"license": spelled}
    return other_license(name)


def other_license(name: str | None) -> dict[str, str]:
    """Name a licence that the Hub does not list, in small letters, digits, dots and hyphens."""
    slug = re.sub(r"[^a-z0-9.]+", "-", (name or "").lower())[:_LICENSE_NAME_LENGTH].strip("-.")
    return {"license": "other", **({"license_name": slug} if slug not in ("", "other") else {})}


def hub_license_of_rows(names: Iterable[str]) -> dict[str, str]:
    """Name the licence of a data set: the one of all its rows, or that each row has its own; nothing where none is known."""
    known = {name for name in names if _license_family(name) not in ("unknown", "")}
    if not known:
        return {}
    named = {tuple(hub_license(name).items()) for name in names}
    if len(named) == 1 and (only := dict(next(iter(named)))) != {"license": "other"}:
        return only
    return {"license": "other", "license_name": "each-row-has-its-own"}


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
        """Return True if all of these licences permit redistributing a video."""
        families = {_license_family(name) for name in names}
        denied = {_license_family(name) for name in self.denied}
        allowed = _REDISTRIBUTABLE | {_license_family(name) for name in self.allowed}
        return not families & denied and families <= allowed
