"""`storm push`: publish a thought-video data set or a checkpoint on the Hub. The kind is read from the folder."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from storm_hf.cli.exits import tell


EPILOG = """Examples:

[bold]storm push runs/answer me/storm[/bold]   a checkpoint, private; give it again if it was cut off

[bold]storm push data/thoughts me/storm-thoughts[/bold]   a data set, private

[bold]storm push data/thoughts me/storm-thoughts --reference[/bold]   features and names of clips, no videos

[bold]storm push runs/answer me/storm --public --tag v1[/bold]   asks before everybody can see it

[bold]storm push runs/answer me/storm --dry-run[/bold]   lists files, sizes and the card; needs no token and no network

[bold]storm push --space me/ask-storm --model me/storm[/bold]   a page that asks a published model

The address goes to stdout, everything else to stderr."""


def push_folder(
    folder: Annotated[
        Path | None, typer.Argument(help="A checkpoint, or the output_dir of a finished build.", show_default=False)
    ] = None,
    repo: Annotated[
        str | None, typer.Argument(help="Repository id on the Hub, such as me/storm.", show_default=False)
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            "--space",
            help="Instead of a folder: repository id of a Space with the page of `storm app`.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="For a Space: repository id of its model.", show_default=False)
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Make it public.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Skip the confirmation of --public.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be published, with its card, and send nothing.")
    ] = False,
    include: Annotated[
        list[str] | None,
        typer.Option(
            "--include",
            help="Pattern of files to publish besides those of known kinds, such as 'notes/*.md'; repeatable.",
            show_default=False,
        ),
    ] = None,
    license_name: Annotated[
        str | None,
        typer.Option("--license", help="For a checkpoint: licence of the weights, for the card.", show_default=False),
    ] = None,
    revision: Annotated[str, typer.Option(help="Branch to commit to.")] = "main",
    tag: Annotated[str | None, typer.Option(help="Tag of this version.", show_default=False)] = None,
    diagnosis: Annotated[
        Path | None,
        typer.Option(help="For a checkpoint: diagnosis.json, whose table the card shows.", show_default=False),
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option(help="For a checkpoint: report.json of `storm evaluate`, for the card.", show_default=False),
    ] = None,
    embed: Annotated[
        bool,
        typer.Option(
            "--embed/--reference",
            help="For a data set: include the videos whose licences allow it, or their names only.",
        ),
    ] = True,
    allow_license: Annotated[
        list[str] | None,
        typer.Option("--allow-license", help="A further licence whose videos may be published.", show_default=False),
    ] = None,
    deny_license: Annotated[
        list[str] | None,
        typer.Option("--deny-license", help="A licence whose videos are withheld.", show_default=False),
    ] = None,
) -> None:
    """Publish a checkpoint or a data set of thoughts: private, unless --public is given.

    What is published is a list of known kinds; the rest is named as left out. Credentials, pickles and paths of this machine are
    refused. Of a data set, a clip whose licence does not allow it stays here: its row has features and a name. The card says so.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars

    from storm_hf.hub.checkpoint_push import CheckpointPush
    from storm_hf.hub.licenses import LicenseRule
    from storm_hf.hub.push import DatasetPush
    from storm_hf.hub.space_push import SpacePush

    if not sys.stderr.isatty():
        disable_progress_bars()
    how: dict[str, Any] = {
        "public": public,
        "revision": revision,
        "tag": tag,
        "api": HfApi(),
        "include": include or (),
    }
    push: CheckpointPush | DatasetPush | SpacePush
    if space and model and not folder:
        push = SpacePush(space, **how, model=model)
    elif folder is None or repo is None or space or model:
        raise typer.BadParameter("Give a folder and a name on the Hub, or --space and --model.")
    elif any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
        push = CheckpointPush(folder, repo, **how, diagnosis=diagnosis, evaluation=evaluation, license=license_name)
    elif license_name:
        raise typer.BadParameter("--license is of a checkpoint. Each row of a data set has its own.")
    else:
        rule = LicenseRule(frozenset(allow_license or ()), frozenset(deny_license or ()))
        push = DatasetPush(folder, repo, **how, embeds=embed, rule=rule)
    if dry_run:
        preview = push.dry_run()
        typer.echo("\n".join(preview.listing))
        for line in preview.summary:
            tell(line)
        return
    subject = push.subject  # refuses a folder that holds neither
    if public and not yes and not typer.confirm(f"Let everybody see {subject} as {push.repo}?", err=True):
        tell("Nothing was uploaded.")
        raise typer.Exit(1)
    publication = push.run()
    for line in publication.summary:
        tell(line)
    typer.echo(push.address(publication.repo))
