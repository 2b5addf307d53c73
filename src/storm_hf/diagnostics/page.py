"""Report of a diagnosis: `diagnosis.json`, and `diagnosis.html`, a page that explains it."""

import os
from pathlib import Path
from typing import Any

from storm_hf.diagnostics import figures
from storm_hf.diagnostics.record import Diagnosis
from storm_hf.diagnostics.verdict import FEWEST_CLIPS, SOME, USED, with_interval
from storm_hf.reporting import render_page, write_atomically


JSON_FILE, PAGE_FILE = "diagnosis.json", "diagnosis.html"


def write_diagnosis(folder: str | os.PathLike[str], diagnosis: Diagnosis, pictures: Any = None) -> Path:
    """Write the record and the page, each complete or not at all.

    Args:
        folder (`str` or `os.PathLike`):
            Output folder of both files.
        diagnosis ([`Diagnosis`]):
            Results to show.
        pictures (`markupsafe.Markup`, *optional*):
            Rendered latents, as from [`~storm_hf.diagnostics.seeing.renderer.LatentRenderer`].

    Returns:
        `Path`: The page. It needs no other file and no network.

    Raises:
        MissingExtraError: If jinja2 is not installed.
    """
    page = render_page(
        "storm_hf.diagnostics",
        "diagnosis.html.j2",
        diagnosis=diagnosis,
        verdict=diagnosis.verdict,
        thresholds={"used": USED, "some": SOME, "fewest_clips": FEWEST_CLIPS},
        with_interval=with_interval,
        pictures=pictures,
        charts={
            "accuracy": figures.accuracy_of_replacements(diagnosis),
            "donors": figures.following_donors(diagnosis),
            "steps": figures.curves_over_steps(diagnosis),
            "content": figures.content_by_step(diagnosis),
            "attention": figures.attention_by_layer(diagnosis),
        },
    )
    write_atomically(Path(folder) / JSON_FILE, diagnosis.to_json())
    return write_atomically(Path(folder) / PAGE_FILE, page)
