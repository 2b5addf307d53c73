"""`storm env`: description of the installation for a bug report."""

import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module, metadata
from pathlib import Path
from typing import Annotated

import typer

from storm_hf.cli.options import AsJson
from storm_hf.cli.output import print_message
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

[bold]storm env[/bold]   versions and hardware

[bold]storm env --check[/bold]   for an issue: paste what it prints

[bold]storm env --json | jq .packages.torch[/bold]   for a program"""

Section = Iterator[tuple[str, str]]


def show_environment(
    check: Annotated[
        bool, typer.Option("--check", help="Also test the accelerator and each video backend by loading them.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Describe this installation, for a bug report: versions and hardware, and with --check what works."""
    shown = sections(check)
    if as_json:
        typer.echo(json.dumps({title: dict(section) for title, section in shown.items()}, indent=2))
        return
    width = max(map(len, (*EXTRA_OF, *CORE_PACKAGES, *map(_title_of, VIDEO_BACKENDS))))
    for index, (title, section) in enumerate(shown.items()):
        typer.echo(f"\n{title}" if index else title)
        for name, value in section:
            typer.echo(f"  {name:<{width}}  {value}")
    if not check:
        print_message("`storm env --check` also tests the accelerator and the video backends by loading them.")


def sections(check: bool = False) -> dict[str, Section]:
    """Sections of the description. Each line is computed when it is printed; only the check loads torch.

    Args:
        check (`bool`, *optional*, defaults to `False`):
            Whether to load the accelerator's library and the video backends.
    """
    packages = ("storm-hf", *CORE_PACKAGES, *sorted(EXTRA_OF))
    described = {"system": system(), "packages": ((name, _version_of(name)) for name in packages)}
    return described | ({"health": health()} if check else {})


def system() -> Section:
    """Python, platform, cores and memory."""
    yield "python", f"{platform.python_version()} ({sys.executable})"
    yield "platform", platform.platform()
    yield "cores", str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    yield "memory", memory()


def health() -> Section:
    """Accelerator, torchvision and video backends, each loaded."""
    yield "accelerator", accelerator()
    yield "torchvision", health_of("torchvision")
    yield from video_backends()


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


def _version_of(distribution: str) -> str:
    """Installed version of a package."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        if distribution == "storm-hf":  # run from a source tree
            return f"{import_module('storm_hf').__version__} (not installed)"
        return "not installed"


def health_of(package: str) -> str:
    """Import a package: `works`, or the reason why it does not load."""
    try:
        import_module(package)
    except (ImportError, OSError, RuntimeError) as error:  # a shared library that does not fit raises any of the three
        return f"does not load: {one_line(error)}"
    return "works"


def video_backends() -> Section:
    """Read a small clip with each backend, since an installed decoder may still not decode."""
    import numpy as np

    from storm_hf.video import write_video

    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder, "probe.mp4")
        write_video(clip, np.zeros((4, 32, 32, 3), dtype=np.uint8), fps=4)
        for backend in VIDEO_BACKENDS:
            yield _title_of(backend), _probe(clip, backend)


def _title_of(backend: str) -> str:
    return f"video: {backend}"


def _probe(clip: Path, backend: str) -> str:
    from storm_hf.video import read_video

    try:
        read_video(clip, backend=backend)
    except StormError as error:
        return one_line(error)
    return "works"
