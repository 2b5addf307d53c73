"""`storm push`: publish a thought-video data set or a checkpoint on the Hub. The kind is read from the folder."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from storm_hf.cli.output import print_message


if TYPE_CHECKING:
    from storm_hf.hub.checkpoint_push import CheckpointPush
    from storm_hf.hub.push import DatasetPush
    from storm_hf.hub.space_push import SpacePush


EPILOG = """Examples:

[bold]storm push runs/answer me/storm[/bold]   a checkpoint, private; give it again if it was cut off

[bold]storm push data/thoughts me/storm-thoughts[/bold]   a data set, private

[bold]storm push data/thoughts me/storm-thoughts --reference[/bold]   features and names of clips, no videos

[bold]storm push runs/answer me/storm --public --tag v1[/bold]   asks before everybody can see it

[bold]storm push runs/answer me/storm --dry-run[/bold]   lists files, sizes and the card; needs no token and no network

[bold]storm push --space me/ask-storm --model me/storm[/bold]   a page that asks a published model

The address goes to stdout, everything else to stderr."""


Folder = Annotated[
    Path | None, typer.Argument(help="A checkpoint, or the folder of a finished build.", show_default=False)
]
Repo = Annotated[str | None, typer.Argument(help="Repository id on the Hub, such as me/storm.", show_default=False)]
Space = Annotated[
    str | None,
    typer.Option(
        help="Instead of a folder: repository id of a Space with the page of `storm app`.", show_default=False
    ),
]
SpaceModel = Annotated[
    str | None, typer.Option("--model", "-m", help="For a Space: repository id of its model.", show_default=False)
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Skip the confirmation of --public.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="List what would be published, with its card, and send nothing.")
]
Include = Annotated[
    list[str] | None,
    typer.Option(
        help="Pattern of files to publish besides those of known kinds, such as 'notes/*.md'; repeatable.",
        show_default=False,
    ),
]
License = Annotated[
    str | None,
    typer.Option("--license", help="For a checkpoint: licence of the weights, for the card.", show_default=False),
]
Diagnosis = Annotated[
    Path | None,
    typer.Option(help="For a checkpoint: diagnosis.json, whose table the card shows.", show_default=False),
]
Evaluation = Annotated[
    Path | None,
    typer.Option(help="For a checkpoint: report.json of `storm evaluate`, for the card.", show_default=False),
]
Embed = Annotated[
    bool,
    typer.Option(
        "--embed/--reference",
        help="For a data set: include the videos whose licences allow it, or their names only.",
    ),
]
AllowLicense = Annotated[
    list[str] | None,
    typer.Option(help="A further licence whose videos may be published; repeatable.", show_default=False),
]
DenyLicense = Annotated[
    list[str] | None, typer.Option(help="A licence whose videos are withheld; repeatable.", show_default=False)
]


def push_folder(
    folder: Folder = None,
    repo: Repo = None,
    space: Space = None,
    model: SpaceModel = None,
    public: Annotated[bool, typer.Option("--public", help="Make it public.")] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    include: Include = None,
    license_name: License = None,
    revision: Annotated[str, typer.Option(help="Branch to commit to.")] = "main",
    tag: Annotated[str | None, typer.Option(help="Tag of this version.", show_default=False)] = None,
    diagnosis: Diagnosis = None,
    evaluation: Evaluation = None,
    embed: Embed = True,
    allow_license: AllowLicense = None,
    deny_license: DenyLicense = None,
) -> None:
    """Publish a checkpoint, a thought-video data set or a Space with the page of a model: private, unless --public is given.

    Files of known kinds are published, and the others are listed as left out. Credentials, pickles and paths of this machine are
    refused. Clips of a data set that may not be redistributed are not published: their rows have the features and the file's name.
    """
    from huggingface_hub import HfApi

    how = {"public": public, "revision": revision, "tag": tag, "api": HfApi(), "include": include or ()}
    push: CheckpointPush | DatasetPush | SpacePush
    if space and model and not folder:
        push = _space(space, model, how)
    elif folder is None or repo is None or space or model:
        raise typer.BadParameter("Give a folder and a name on the Hub, or --space and --model.")
    elif any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
        push = _checkpoint(folder, repo, how, diagnosis, evaluation, license_name)
    elif license_name:
        raise typer.BadParameter("--license is of a checkpoint. Each row of a data set has its own.")
    else:
        push = _data_set(folder, repo, how, embed, (allow_license or (), deny_license or ()))
    if dry_run:
        _preview(push)
    else:
        _publish(push, is_confirmed=yes or not public)


def _space(space: str, model: str, how: Mapping[str, Any]) -> "SpacePush":
    from storm_hf.hub.space_push import SpacePush

    return SpacePush(space, **how, model=model)


def _checkpoint(
    folder: Path, repo: str, how: Mapping[str, Any], diagnosis: Path | None, evaluation: Path | None, name: str | None
) -> "CheckpointPush":
    from storm_hf.hub.checkpoint_push import CheckpointPush

    return CheckpointPush(folder, repo, **how, diagnosis=diagnosis, evaluation=evaluation, license=name)


def _data_set(
    folder: Path, repo: str, how: Mapping[str, Any], embeds: bool, licenses: tuple[Sequence[str], Sequence[str]]
) -> "DatasetPush":
    from storm_hf.hub.licenses import LicenseRule
    from storm_hf.hub.push import DatasetPush

    allowed, denied = licenses
    return DatasetPush(folder, repo, **how, embeds=embeds, rule=LicenseRule(frozenset(allowed), frozenset(denied)))


def _preview(push: "CheckpointPush | DatasetPush | SpacePush") -> None:
    """List what would be published."""
    preview = push.dry_run()
    typer.echo("\n".join(preview.listing))
    for line in preview.summary:
        print_message(line)


def _publish(push: "CheckpointPush | DatasetPush | SpacePush", is_confirmed: bool) -> None:
    """Publish, and print the address."""
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    subject = push.subject  # refuses a folder that holds neither
    if not is_confirmed and not typer.confirm(f"Let everybody see {subject} as {push.repo}?", err=True):
        print_message("Nothing was uploaded.")
        raise typer.Exit(1)
    publication = push.run()
    for line in publication.summary:
        print_message(line)
    typer.echo(push.address(publication.repo))
