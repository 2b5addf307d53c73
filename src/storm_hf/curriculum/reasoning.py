"""Rows whose answers hold what latents have not yet replaced of a written chain of thought."""

from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from datasets import Dataset

from storm_hf.errors import DatasetError
from storm_hf.inputs.chain import split_steps
from storm_hf.target_trajectory.schema import FEATURES_COLUMN
from storm_hf.training.loading import load_rows


def replace_reasoning(rows: Dataset, column: str, num_replaced: int) -> Dataset:
    """Write a chain of thought before each answer, without its first steps.

    Args:
        rows ([`~datasets.Dataset`]):
            Rows with `answer` and a written chain.
        column (`str`):
            Column of the chain.
        num_replaced (`int`):
            Steps that are left out; 0 keeps the whole chain. A row whose chain has no more steps keeps its answer alone.

    Returns:
        [`~datasets.Dataset`]: The same rows, with other answers.

    Raises:
        DatasetError: If a column is missing, or a row has no chain.
    """
    if missing := sorted({column, "answer"} - set(rows.column_names)):
        raise DatasetError(
            f"Expected rows with an answer and a written chain of thought, but {' and '.join(missing)} is missing from "
            f"{sorted(rows.column_names)}. Name the column of the chain with `reasoning_column`."
        )
    pairs = list(zip(rows[column], rows["answer"], strict=True))
    if (number := next((number for number, (chain, _) in enumerate(pairs) if not chain), None)) is not None:
        raise DatasetError(
            f"Expected a written chain of thought in every row, but `{column}` of row {number} is empty. Leave it out."
        )
    written = [_without_first(chain, answer, num_replaced) for chain, answer in pairs]
    kind = rows.features["answer"]
    order = rows.column_names
    return rows.remove_columns("answer").add_column("answer", written, feature=kind).select_columns(order)


def _without_first(chain: str, answer: str, num_replaced: int) -> str:
    between = "\n" if "\n" in chain.strip() else " "
    return between.join([*split_steps(chain)[num_replaced:], answer])


def write_rows(source: str, config: str | None, folder: Path, column: str, num_replaced: int) -> Path:
    """Write the rows of a data set with their reasoning replaced, as `load_rows` reads them. Nothing is written twice.

    Args:
        source (`str`):
            The data set, as [`~storm_hf.training.loading.load_rows`] takes it.
        config (`str`, *optional*):
            Name of its configuration.
        folder (`Path`):
            Output folder of the rows, without the columns of Stage I. Paths of videos become absolute.
        column (`str`):
            See `replace_reasoning`.
        num_replaced (`int`):
            See `replace_reasoning`.
    """
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(mkdtemp(prefix=f".{folder.name}.unfinished-", dir=folder.parent))
    for split, rows in load_rows(source, config).items():
        kept = rows.select_columns([name for name in rows.column_names if name != FEATURES_COLUMN])
        path = unfinished / "data" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_reasoning(kept, column, num_replaced).to_parquet(path)
    try:
        unfinished.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        rmtree(unfinished)  # another machine of the same run was faster, and wrote the same
    return folder
