"""Do our rules of TempCompass give the ratings that its authors published?

    git clone https://github.com/llyx97/TempCompass
    python benchmarks/replay_tempcompass.py --predictions TempCompass

The repository ships answers of several models with the authors' ratings (`auto_eval_results/MODEL/FORMAT.json`). Each answer is read
again by our `official` scorer. Printed per file: how often we and they agree whether a rule matches at all, how often the ratings
are equal where both say so, and how often both are. Ratings that a judge gave are not compared. Captions have no rule, and where a
model refused there is no answer.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from storm_hf.errors import DatasetError
from storm_hf.evaluation.results.samples import tempcompass_question
from storm_hf.evaluation.scorers import QuestionKind, read_answer


_FORMATS: dict[str, QuestionKind] = {
    "multi-choice": "multiple-choice",
    "yes_no": "yes_no",
    "caption_matching": "caption_matching",
}


@dataclass(frozen=True)
class Replay:
    """Ratings of one answer, by the authors and by this package.

    Args:
        published (`bool` or `None`):
            Their rating, `None` where a rule did not match and a judge was asked.
        ours (`bool` or `None`):
            Ours.
    """

    published: bool | None
    ours: bool | None


def main() -> None:
    """Print a line per file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", type=Path, required=True, help="a clone of the repository of TempCompass")
    folder = parser.parse_args().predictions / "auto_eval_results"
    files = [path for path in sorted(folder.glob("*/*.json")) if path.stem in _FORMATS]
    if not files:
        raise SystemExit(f"No ratings in {folder}. Pass a clone of https://github.com/llyx97/TempCompass.")
    print(f"{'file':42} {'answers':>8} {'by rule':>8} {'same match':>11} {'same rating':>12} {'both':>8}")
    for path in files:
        print(f"{path.parent.name + '/' + path.name:42} {_line(list(replay(path)))}")


def replay(path: Path) -> Iterator[Replay]:
    """Read the answers of a file again.

    Args:
        path (`Path`):
            Ratings of a model in a format, from video to aspect to a list of answers.

    Raises:
        DatasetError: If a row has another form.
    """
    for aspects in json.loads(path.read_text(encoding="utf-8")).values():
        for row in (row for rows in aspects.values() for row in rows):
            try:
                question = tempcompass_question(row["question"], row["gt-answer"], _FORMATS[path.stem])
                published = bool(row["rating"]) if row["match_success"] else None
                completion = row["video-llm-prediction"]
            except (KeyError, ValueError) as error:
                raise DatasetError(
                    f"{path} has a row of another form: {error}. Use the repository as published."
                ) from error
            if completion is not None:
                yield Replay(published, read_answer("tempcompass", "official", completion, question).correct)


def _line(rows: list[Replay]) -> str:
    same_match = [(row.published is None) == (row.ours is None) for row in rows]
    by_both = [row for row in rows if row.published is not None and row.ours is not None]
    same_rating = sum(row.published == row.ours for row in by_both) / max(1, len(by_both))
    both = sum(row.published == row.ours for row in rows) / len(rows)
    by_rule = sum(row.published is not None for row in rows)
    return f"{len(rows):8,} {by_rule:8,} {sum(same_match) / len(rows):11.2%} {same_rating:12.2%} {both:8.2%}"


if __name__ == "__main__":
    main()
