"""`storm env`: what a bug report needs to say about the machine."""

import json
import os
import platform
import sys
import tempfile
from importlib import import_module, metadata
from pathlib import Path
from typing import Annotated

import typer

from storm_hf.errors import StormError, one_line
from storm_hf.optional import EXTRA_OF


CORE_PACKAGES = (
    "torch",
    "torchvision",
    "transformers",
    "accelerate",
    "huggingface_hub",
    "safetensors",
    "tokenizers",
    "av",
    "numpy",
    "pillow",
)
VIDEO_BACKENDS = ("pyav", "torchcodec", "decord")
EPILOG = """Examples:

[bold]storm env[/bold]   for an issue: paste what it prints

[bold]storm env --json | jq .packages.torch[/bold]   for a program"""

Section = dict[str, str]


def show_environment(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Describe this installation, for a bug report.

    Versions, hardware, and which ways of reading videos work here.
    """
    sections = {
        "system": system(),
        "packages": {name: version_of(name) for name in ("storm-hf", *CORE_PACKAGES, *sorted(EXTRA_OF))},
        "health": {"torchvision": health_of("torchvision")} | video_backends(),
    }
    typer.echo(json.dumps(sections, indent=2) if as_json else as_text(sections))


def as_text(sections: dict[str, Section]) -> str:
    """Lay the sections out in two columns."""
    width = max(len(name) for section in sections.values() for name in section)
    blocks = (
        "\n".join([title, *(f"  {name:<{width}}  {value}" for name, value in section.items())])
        for title, section in sections.items()
    )
    return "\n\n".join(blocks)


def system() -> Section:
    """Python, platform, cores, memory and accelerator."""
    return {
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": platform.platform(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "memory": memory(),
        "accelerator": accelerator(),
    }


def memory() -> str:
    """Size of the main memory."""
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # no POSIX system
        return "unknown"
    return f"{size / 2**30:.1f} GiB"


def accelerator() -> str:
    """Name of the device that models run on."""
    import torch

    if not torch.accelerator.is_available():
        return "none; models run on the CPU"
    device = torch.accelerator.current_accelerator()
    count = torch.accelerator.device_count()
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return f"{count} x {name or device}"


def version_of(distribution: str) -> str:
    """Installed version of a package."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        if distribution == "storm-hf":  # run from a source tree
            return f"{import_module('storm_hf').__version__} (not installed)"
        return "not installed"


def health_of(package: str) -> str:
    """Say whether a package loads: `works`, or why it does not."""
    try:
        import_module(package)
    except (ImportError, OSError, RuntimeError) as error:  # a shared library that does not fit raises any of the three
        return f"does not load: {one_line(error)}"
    return "works"


def video_backends() -> Section:
    """Have each backend read a small clip, since a decoder that is installed may still not decode."""
    import numpy as np

    from storm_hf.video import write_video

    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder, "probe.mp4")
        write_video(clip, np.zeros((4, 32, 32, 3), dtype=np.uint8), fps=4)
        return {f"video: {backend}": _probe(clip, backend) for backend in VIDEO_BACKENDS}


def _probe(clip: Path, backend: str) -> str:
    from storm_hf.video import read_video

    try:
        read_video(clip, backend=backend)
    except StormError as error:
        return one_line(error)
    return "works"
