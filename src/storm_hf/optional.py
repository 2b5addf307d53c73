"""Optional packages, and the extra that installs each of them."""

import importlib
import importlib.metadata
import json
import shlex
from types import ModuleType
from urllib.parse import urlsplit
from urllib.request import url2pathname

from storm_hf.errors import BrokenExtraError, MissingExtraError


DISTRIBUTION = "storm-hf"

# From the name a package is imported by to the extra of `pyproject.toml` that installs it.
EXTRA_OF = {
    "bitsandbytes": "scale",
    "datasets": "train",
    "datatrove": "thoughts",
    "decord": "decoders",
    "deepspeed": "scale",
    "diffusers": "thoughts",
    "fastapi": "serve",
    "ftfy": "thoughts",
    "gradio": "app",
    "httpx": "serve",
    "jinja2": "demo",
    "lmms_eval": "evaluation",
    "openai": "thoughts",
    "peft": "train",
    "psutil": "demo",
    "pyarrow": "thoughts",
    "ray": "ray",
    "torchcodec": "decoders",
    "trl": "train",
    "uvicorn": "serve",
}


def require(package: str) -> ModuleType:
    """Import an optional package, or raise an error with the install command.

    Args:
        package (`str`):
            Name to import, such as `"gradio"` or `"pyarrow.parquet"`. Its first part is a key of `EXTRA_OF`.

    Returns:
        `ModuleType`: The imported module.

    Raises:
        MissingExtraError: If the package is not installed; the message is the command that installs it.
        BrokenExtraError: If it is installed but does not load, as a decoder without its shared libraries.

    Example:
        ```python
        gradio = require("gradio")
        ```
    """
    name = package.partition(".")[0]
    extra = EXTRA_OF[name]
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != name:
            command = install_command(extra)
            raise BrokenExtraError(f"`{name}` needs `{error.name}`. Complete it with: {command}") from error
        raise MissingExtraError(f"`{name}` is missing. Install it with: {install_command(extra)}") from error
    except (ImportError, OSError, RuntimeError) as error:  # a missing shared library raises any of the three
        reason = str(error).partition("\n")[0].partition(". ")[0].strip()
        raise BrokenExtraError(
            f"`{name}` is installed but does not load ({reason}). Install what it needs from the system, or repair it "
            f"with: pip install --force-reinstall {name}"
        ) from error


def install_command(extra: str) -> str:
    """The command that adds an extra to storm-hf from where it came: a package index, or a folder on this machine.

    Args:
        extra (`str`):
            Its name in `pyproject.toml`.
    """
    try:
        found = importlib.metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:  # run from its sources, without having been installed
        found = None
    origin = json.loads(found) if found else {}
    if "dir_info" not in origin:
        return f"pip install '{DISTRIBUTION}[{extra}]'"
    folder = url2pathname(urlsplit(origin["url"]).path)
    option = "-e " if origin["dir_info"].get("editable") else ""
    return f"pip install {option}{shlex.quote(f'{folder}[{extra}]')}"
