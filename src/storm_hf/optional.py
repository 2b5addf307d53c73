"""Optional packages, and the extra that installs each of them."""

import importlib
import importlib.metadata
import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from storm_hf.errors import DependencyError


_DISTRIBUTION = "storm-hf"

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
    "gguf": "pretrained",
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
_OWN_ENVIRONMENTS = ("app", "evaluation")  # targets of the Makefile too
_SYSTEM_PACKAGE = {"torchcodec": "FFmpeg's shared libraries (apt install ffmpeg)"}


def require(package: str) -> ModuleType:
    """Import an optional package, or raise an error with the install command.

    Args:
        package (`str`):
            Name to import, such as `"gradio"` or `"pyarrow.parquet"`. Its first part is a key of `EXTRA_OF`.

    Returns:
        `ModuleType`: The imported module.

    Raises:
        DependencyError: If the package is not installed, or does not load, as a decoder without its shared libraries. The message
            has the command that installs it.

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
            raise DependencyError(f"`{name}` needs `{error.name}`. Complete it with: {command}") from error
        raise DependencyError(f"`{name}` is missing. {_next_step(extra)}") from error
    except (ImportError, OSError, RuntimeError) as error:  # a missing shared library raises any of the three
        reason = str(error).partition("\n")[0].partition(". ")[0].strip()
        needed = _SYSTEM_PACKAGE.get(name, "what it needs from the system")
        raise DependencyError(
            f"`{name}` is installed but does not load ({reason}). Install {needed}, or repair it "
            f"with: pip install --force-reinstall {name}"
        ) from error


def _next_step(extra: str) -> str:
    """Say how to install an extra: some need older versions of shared packages than the others."""
    if extra not in _OWN_ENVIRONMENTS:
        return f"Install it with: {install_command(extra)}"
    origin = _origin()
    clone = _folder_of(origin) if origin.get("dir_info", {}).get("editable") else ""
    if clone and Path(clone, "Makefile").is_file():
        return (
            f"It needs an environment of its own: run `make {extra}` in {clone}, then "
            f"`{clone}/.venv-{extra}/bin/storm` in place of `storm`."
        )
    return f"It needs an environment of its own. Install it there with: {install_command(extra)}"


def install_command(extra: str) -> str:
    """The command that adds an extra to storm-hf from where it came: a package index, or a folder on this machine.

    Args:
        extra (`str`):
            Its name in `pyproject.toml`.
    """
    origin = _origin()
    if "dir_info" not in origin:
        return f"pip install '{_DISTRIBUTION}[{extra}]'"
    option = "-e " if origin["dir_info"].get("editable") else ""
    return f"pip install {option}{shlex.quote(f'{_folder_of(origin)}[{extra}]')}"


def _origin() -> dict[str, Any]:
    """Read where the package was installed from (`direct_url.json`); empty if it came from an index, or was not installed."""
    try:
        found = importlib.metadata.distribution(_DISTRIBUTION).read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:  # run from its sources
        found = None
    return json.loads(found) if found else {}


def _folder_of(origin: dict[str, Any]) -> str:
    return url2pathname(urlsplit(origin["url"]).path)


def first_use(package: str, module_of: Mapping[str, str]) -> Callable[[str], object]:
    """Make the `__getattr__` of a package whose names are loaded on first use.

    Args:
        package (`str`):
            Name of the package, its `__name__`.
        module_of (`Mapping[str, str]`):
            From each name to the module that defines it, with its full path.
    """

    def load(name: str) -> object:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(module_of[name]), name)

    return load
