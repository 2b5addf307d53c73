"""What is never published: credentials, files that run code when they are opened, and paths of the machine they come from."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from storm_hf.errors import PublicationError


NOT_PUBLISHED = ("work", ".locks")  # folders of a build that no upload looks into
_PICKLES = {".bin", ".ckpt", ".dill", ".joblib", ".pickle", ".pkl", ".pt", ".pth"}
_TEXTS = {"", ".cfg", ".csv", ".ini", ".json", ".jsonl", ".md", ".py", ".sh", ".toml", ".tsv", ".txt", ".yaml", ".yml"}
_SECRET_NAMES = re.compile(
    r"^(\.env.*|\.netrc|\.git-credentials|credentials(\..*)?|token|id_(rsa|ed25519)|.*\.(pem|key))$"
)
_SECRETS = re.compile(
    r"\bhf_[A-Za-z0-9]{30,}"  # Hugging Face
    r"|\bsk-[A-Za-z0-9_-]{20,}"  # chat models
    r"|\bgh[pousr]_[A-Za-z0-9]{30,}"  # GitHub
    r"|\bAKIA[0-9A-Z]{16}\b"  # Amazon
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
_ABSOLUTE = re.compile(r"^(~?/|[A-Za-z]:[\\/]|\\\\)[^\n]*$")
_LOCAL_PATH = re.compile(
    r"(?<![\w.:/])/(?:home|Users|root|tmp|var|mnt|media|opt|srv|private|scratch|workspace)/[^\s\"']+"
    r"|(?<!\w)[A-Za-z]:\\[^\s\"']+"
)


def check_folder(folder: Path) -> None:
    """Look through a folder for files that must not leave this machine.

    Args:
        folder (`Path`):
            The data set. Its `work` is not looked at: it is never published.

    Raises:
        PublicationError: If there is one; the message names it and shows nothing of its contents.
    """
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and name.parts[0] not in NOT_PUBLISHED:
            check_file(path, name.as_posix())


def check_file(path: Path, name: str) -> None:
    """Make sure that a file is no pickle and holds no credential.

    Args:
        path (`Path`):
            The file.
        name (`str`):
            What the message calls it.

    Raises:
        PublicationError: If it is one or holds one.
    """
    if path.suffix.lower() in _PICKLES:
        raise PublicationError(
            f"Expected no pickled files in what is published but found {name}: opening one runs its code. Move it out of the "
            "folder."
        )
    if _SECRET_NAMES.match(path.name.lower()):
        raise _credential(name)
    if path.suffix.lower() in _TEXTS:
        with path.open(encoding="utf-8", errors="replace") as lines:
            if any(_SECRETS.search(line) for line in lines):
                raise _credential(name)


def check_texts(texts: Iterable[str | None], place: str) -> None:
    """Look for credentials and local paths in texts that are about to be published.

    Args:
        texts (`Iterable[str | None]`):
            The texts.
        place (`str`):
            Where they stand, for the message.

    Raises:
        PublicationError: If there is one.
    """
    for text in texts:
        if text and _SECRETS.search(text):
            raise _credential(place)
        if text and (found := _LOCAL_PATH.search(text)):
            raise PublicationError(
                f"Expected no paths of this machine in what is published but {place} has {found[0]!r}. Remove it; from a data set, "
                "in the annotations, and build again."
            )


def without_folders(content: Any) -> Any:
    """JSON content in which each absolute path is only the name of its file: the folders before it are nobody's business."""
    if isinstance(content, dict):
        return {name: without_folders(value) for name, value in content.items()}
    if isinstance(content, list):
        return [without_folders(value) for value in content]
    return last_name(content) if isinstance(content, str) else content


def last_name(text: str) -> str:
    """The last name of an absolute path; any other text as it is."""
    return re.split(r"[\\/]", text.rstrip("\\/"))[-1] if _ABSOLUTE.match(text) else text


def _credential(place: str) -> PublicationError:
    return PublicationError(
        f"Expected no credentials in what is published but {place} holds what looks like one. Remove it; if it was ever "
        "shared, revoke it."
    )
