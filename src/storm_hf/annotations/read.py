"""Stream the annotations of a source; invalid rows come with a reason."""

import heapq
import os
from collections.abc import Iterator
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

from storm_hf.annotations.annotate import Annotator
from storm_hf.annotations.clip import ClipFinder
from storm_hf.annotations.layout import Layout, load_layout
from storm_hf.annotations.readers import folder_of, read_rows
from storm_hf.annotations.record import Annotation, Rejection, Row, SeenIds
from storm_hf.annotations.source import SourceConfig
from storm_hf.errors import DatasetError


def read_annotations(source: SourceConfig, *, reads_evidence: bool = True) -> Iterator[Annotation | Rejection]:
    """Read a collection row by row. Memory does not grow with its length.

    Args:
        source ([`SourceConfig`]):
            Source of the rows: its path, its layout and its limit.
        reads_evidence (`bool`, *optional*, defaults to `True`):
            Whether chains of thought, intervals and key frames are read. Rows are then rejected where these are malformed.

    Returns:
        `Iterator[Annotation | Rejection]`: In the order of the rows. With a limit alone it ends at that many annotations;
        with a seed the collection is read twice, and which annotations are taken depends on their ids alone.

    Raises:
        ConfigurationError: If there is no such layout.
        DatasetError: If there is nothing to read, or it is not what its name says. What is wrong with a single row is a
            [`Rejection`].

    Example:
        ```python
        for outcome in read_annotations(SourceConfig(path="annotations.jsonl", video_root="clips")):
            print(outcome.question if isinstance(outcome, Annotation) else outcome.reason)
        ```
    """
    layout = load_layout(source.layout)
    outcomes = _read(source, layout, reads_evidence)
    if source.limit is None:
        return outcomes
    if source.seed is None:
        return _first(outcomes, source.limit)
    return _drawn(source, layout, source.limit, source.seed, reads_evidence)


def _read(source: SourceConfig, layout: Layout, reads_evidence: bool) -> Iterator[Annotation | Rejection]:
    rows = read_rows(source, layout)
    return _annotate(rows, _annotator_of(source, layout, reads_evidence))


def _annotator_of(source: SourceConfig, layout: Layout, reads_evidence: bool) -> Annotator:
    """Reader of the rows of one source."""
    root = os.path.abspath(source.video_root or folder_of(source))
    if source.video_root and not os.path.isdir(root):
        raise DatasetError(f"Expected a folder of clips as video_root but there is no {root}. Is its disk mounted?")
    return Annotator(
        layout=layout,
        clips=ClipFinder(layout, Path(root), bounded=bool(source.video_root)),
        source=source.name or layout.source or Path(source.path).stem,
        license=source.license or layout.license,
        reads_evidence=reads_evidence,
    )


def _annotate(rows: Iterator[Row | Rejection], annotator: Annotator) -> Iterator[Annotation | Rejection]:
    with SeenIds() as seen:
        for row in rows:
            if isinstance(row, Rejection):
                yield replace(row, id=annotator.name_of(row.row), source=annotator.source)
                continue
            for outcome in annotator.annotate(row):
                if isinstance(outcome, Annotation) and not seen.add(outcome.id):
                    yield annotator.repeated(row, outcome)
                else:
                    yield outcome


def _first(outcomes: Iterator[Annotation | Rejection], limit: int) -> Iterator[Annotation | Rejection]:
    for outcome in outcomes:
        yield outcome
        limit -= isinstance(outcome, Annotation)
        if not limit:
            return


def _drawn(
    source: SourceConfig, layout: Layout, limit: int, seed: int, reads_evidence: bool
) -> Iterator[Annotation | Rejection]:
    """Those with the smallest hashes: a random subset that stays, but for one row, where a row is added."""
    outcomes = _read(source, layout, reads_evidence)
    hashes = (_hash(seed, each.id) for each in outcomes if isinstance(each, Annotation))
    drawn = set(heapq.nsmallest(limit, hashes))
    for outcome in _read(source, layout, reads_evidence):
        if isinstance(outcome, Rejection) or _hash(seed, outcome.id) in drawn:
            yield outcome


def _hash(seed: int, name: str) -> bytes:
    return blake2b(f"{seed}:{name}".encode(), digest_size=16).digest()
