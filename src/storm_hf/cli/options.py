"""Options that several commands share, and the checkpoint that `--model` names."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from storm_hf.cli.output import silence_libraries, waiting
from storm_hf.errors import CheckpointError
from storm_hf.interventions.kind import OF_ONE_QUESTION, read_kind


if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

    from storm_hf.model import StormForConditionalGeneration


DEMO_MODEL = Path("runs", "demo", "storm")


def by_default(text: str, default: str) -> str:
    """Write a help text whose default is no plain value."""
    return f"{text}  [dim]\\[default: {default}][/dim]"


def _set_video_backend(backend: str | None) -> str | None:
    """Set the backend while the arguments are read, before a model is loaded."""
    if backend is not None:
        from storm_hf.video import set_video_backend

        set_video_backend(backend)
    return backend


Model = Annotated[
    str, typer.Option("--model", "-m", help="Folder or Hub name of a STORM or an adapter.", show_default=False)
]
DemoModel = Annotated[
    str | None, typer.Option("--model", "-m", help=by_default("Folder or Hub name of a STORM.", str(DEMO_MODEL)))
]
Dataset = Annotated[
    str,
    typer.Option(
        "--dataset",
        "-d",
        help="Folder or Hub name of a thought-video data set, or folder of a demo; `storm diagnose` also takes rows of your own.",
        show_default=False,
    ),
]
NumLatents = Annotated[
    int | None,
    typer.Option(min=0, help=by_default("Latent steps to think for; 0 answers at once.", "the model's")),
]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Maximum length of an answer, in tokens.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Questions that are answered together.")]
Host = Annotated[str, typer.Option(help="Address to listen on.")]
HIGHEST_PORT = 65535
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
VideoBackend = Annotated[
    str | None,
    typer.Option(
        "--video-backend",
        envvar="STORM_VIDEO_BACKEND",
        callback=_set_video_backend,
        help=by_default("Decodes clips: pyav, decord or torchcodec.", "pyav"),
    ),
]


def intervention(help_text: str) -> Any:
    """Declare an option that takes an intervention which one question can be asked under."""
    return typer.Option(
        metavar=" | ".join(OF_ONE_QUESTION),
        callback=lambda name: name and str(read_kind(name, OF_ONE_QUESTION)),
        help=help_text,
    )


def demo_model() -> str:
    """Name the model that `storm demo` trained, for commands that are given none.

    Raises:
        CheckpointError: If there is none.
    """
    if not DEMO_MODEL.is_dir():
        raise CheckpointError(
            f"There is no model in {DEMO_MODEL}: run `storm demo` to train one, or name one with --model."
        )
    return str(DEMO_MODEL)


def load_model(name_or_path: str) -> "tuple[StormForConditionalGeneration, ProcessorMixin]":
    """Load a checkpoint for inference, on the accelerator if there is one, silencing library output.

    Args:
        name_or_path (`str`):
            A folder or a name on the Hub.

    Raises:
        CheckpointError: If there is no such checkpoint, or it is not whole.
    """
    with waiting(f"Loading {name_or_path}"):
        import torch

        from storm_hf.checkpoints.loading import load_checkpoint

        silence_libraries()
        return load_checkpoint(name_or_path, torch.accelerator.current_accelerator(check_available=True) or "cpu")


def load_any_model(name_or_path: str) -> "tuple[PreTrainedModel, ProcessorMixin]":
    """Load a STORM or a plain checkpoint as [`load_model`] does.

    Args:
        name_or_path (`str`):
            A folder or a name on the Hub.

    Raises:
        CheckpointError: If there is no such checkpoint, or it is not whole.
    """
    with waiting(f"Loading {name_or_path}"):
        import torch

        from storm_hf.checkpoints.loading import is_storm, load_plain

        if is_storm(name_or_path):
            return load_model(name_or_path)
        silence_libraries()
        return load_plain(name_or_path, torch.accelerator.current_accelerator(check_available=True) or "cpu")
