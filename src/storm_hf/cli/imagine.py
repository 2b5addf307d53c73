"""`storm imagine`: render the latents of a model."""

from pathlib import Path
from typing import Annotated

import typer

from storm_hf.cli.options import Dataset, Model, VideoBackend, load_model
from storm_hf.cli.output import given_command, print_message, progress_bar, waiting
from storm_hf.errors import DatasetError


EPILOG = """Examples:

[bold]storm imagine --model runs/demo/storm --dataset runs/demo/data --out runs/demo/imagined[/bold]

[bold]storm imagine --model runs/demo/storm --dataset runs/demo/data --out seen --rows 256[/bold]   more questions to count

The first run trains a decoder, about a minute on a CPU core, and keeps it in the folder `decoder` of the model.
The address of the page goes to stdout, everything else to stderr."""


Out = Annotated[
    Path, typer.Option(file_okay=False, help="Output folder of the page, films and pictures.", show_default=False)
]


def imagine_clips(
    model: Model,
    dataset: Dataset,
    out: Out,
    rows: Annotated[int, typer.Option(min=1, help="Number of questions.")] = 64,
    scenes: Annotated[int, typer.Option(min=1, help="Number of questions shown on the page.")] = 4,
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "test",
    updates: Annotated[int, typer.Option(min=1, help="Training steps of the decoder, if one is trained.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the questions and of the decoder's weights.")] = 0,
    video_backend: VideoBackend = None,
) -> None:
    """Render the latents of a model: clip, thought video and rendered latents in one film.

    A small decoder is trained on thought videos alone, and then renders the model's own latents.
    """
    with waiting(f"Reading {dataset}"):
        from storm_hf.diagnostics.latent_decoder import DecoderTraining, find_trajectory
        from storm_hf.diagnostics.latent_decoder.renderer import LatentRenderer
        from storm_hf.diagnostics.latent_decoder.run import decoder_of, held_out_split, imagine_rows
        from storm_hf.training.loading import load_rows

        splits = load_rows(dataset)
    if split not in splits:
        raise DatasetError(f"Expected a split of {dataset} ({', '.join(splits)}) but got {split!r}. Give --split.")
    network, processor = load_model(model)
    trajectory = find_trajectory(model, dataset).with_num_latents(network.config.num_latents)
    home = Path(model) if Path(model).is_dir() else out
    training = DecoderTraining(num_updates=updates, seed=seed)
    decoder = decoder_of(home, trajectory, splits, training=training, progress=progress_bar)
    asked = splits[split].shuffle(seed=seed).select(range(min(rows, len(splits[split])))).to_list()
    report = imagine_rows(
        LatentRenderer(network, processor, decoder, trajectory),
        asked,
        held_out_split(splits),
        out,
        name=Path(model).name,
        command=given_command(),
        num_scenes=scenes,
        progress=progress_bar,
    )
    if report.drawn_right is not None:
        print_message(f"{report.drawn_right:.1%} of {report.num_frames} drawn frames show the true state.")
    print_message(f"{report.accuracy:.1%} of {report.num_read} answers are correct.")
    typer.echo(str(out / "imagine.html"))
