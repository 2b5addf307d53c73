"""`storm push`: publish a data set of thoughts on the Hub."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from storm_hf.cli.exits import tell


EPILOG = """Examples:

[bold]storm push data/thoughts me/storm-thoughts[/bold]   private; give it again if it was cut off

[bold]storm push data/thoughts me/storm-thoughts --reference[/bold]   features and names of clips, no videos

[bold]storm push data/thoughts me/storm-thoughts --public --tag v1[/bold]   asks before everybody can see it

The address of the data set goes to stdout, everything else to stderr."""


def push_folder(
    folder: Annotated[Path, typer.Argument(help="The output_dir of a finished build.", show_default=False)],
    repo: Annotated[str, typer.Argument(help="Name on the Hub, such as me/storm-thoughts.", show_default=False)],
    public: Annotated[bool, typer.Option("--public", help="Let everybody see it.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before it becomes public.")] = False,
    embed: Annotated[
        bool,
        typer.Option("--embed/--reference", help="With the videos whose licences allow it, or with their names only."),
    ] = True,
    revision: Annotated[str, typer.Option(help="Branch to commit to.")] = "main",
    tag: Annotated[str | None, typer.Option(help="Name of this version.", show_default=False)] = None,
    allow_license: Annotated[
        list[str] | None,
        typer.Option("--allow-license", help="A further licence whose videos may be published.", show_default=False),
    ] = None,
    deny_license: Annotated[
        list[str] | None,
        typer.Option("--deny-license", help="A licence whose videos are withheld.", show_default=False),
    ] = None,
) -> None:
    """Publish a data set of thoughts: private, unless --public is given.

    A clip whose licence does not allow it stays here: its row has features and a name. The card says so.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars

    from storm_hf.hub.licenses import LicenseRule
    from storm_hf.hub.push import DatasetPush

    if not sys.stderr.isatty():
        disable_progress_bars()
    api = HfApi()
    push = DatasetPush(
        folder,
        repo,
        public=public,
        embeds=embed,
        revision=revision,
        tag=tag,
        rule=LicenseRule(frozenset(allow_license or ()), frozenset(deny_license or ())),
        api=api,
    )
    num_rows = sum(push.dataset.manifest["num_rows"].values())
    if public and not yes and not typer.confirm(f"Let everybody see {num_rows} rows as {repo}?", err=True):
        tell("Nothing was uploaded.")
        raise typer.Exit(1)
    publication = push.run()
    for license_name, count in publication.withheld.items():
        tell(f"{count} clips with the licence {license_name!r} were not published, only their features and names.")
    tell(f"{publication.num_rows} rows, {'for everybody' if publication.is_public else 'private'}.")
    typer.echo(f"{api.endpoint}/datasets/{publication.repo}")
