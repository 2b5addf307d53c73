import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet
import pytest
from tests.annotations.tiny_sources import make_clips, read, row, write_lines

from storm_hf.annotations import Annotation, SourceConfig, read_annotations
from storm_hf.errors import ConfigurationError


@pytest.fixture
def source(tmp_path):
    make_clips(tmp_path, "a.mp4")
    rows = [row(id=str(index), question=f"What is {index}?") for index in range(40)]
    rows.insert(3, row(id="bad", answer="Z"))
    return write_lines(tmp_path / "rows.jsonl", rows)


def ids(path: Path, **settings: object) -> list[str]:
    return [each.id for each in read(path, **settings)[0]]


def test_order_is_that_of_the_rows_each_time(source):
    assert ids(source) == ids(source) == [str(index) for index in range(40)]


def test_limit_takes_the_first(source):
    kept, rejected = read(source, limit=4)
    assert [each.id for each in kept] == ["0", "1", "2", "3"]
    assert [each.id for each in rejected] == ["bad"]
    assert len(ids(source, limit=400)) == 40


def test_seed_draws_the_same_subset_each_time_in_the_order_of_the_rows(source):
    drawn = ids(source, limit=10, seed=1)
    assert drawn == ids(source, limit=10, seed=1)
    assert drawn == sorted(drawn, key=int)
    assert len(drawn) == 10
    assert drawn != ids(source, limit=10)
    assert drawn != ids(source, limit=10, seed=2)
    assert [each.id for each in read(source, limit=10, seed=1)[1]] == ["bad"]


def test_drawn_subset_does_not_depend_on_the_order_of_the_rows(source):
    drawn = ids(source, limit=10, seed=1)
    source.write_text("".join(reversed(source.read_text().splitlines(keepends=True))))
    assert ids(source, limit=10, seed=1) == drawn[::-1]


def test_row_without_an_id_is_named_the_same_wherever_the_clips_lie(tmp_path):
    names = []
    for folder in (tmp_path / "here", tmp_path / "there"):
        make_clips(folder, "a.mp4")
        names.append(ids(write_lines(folder / "rows.jsonl", [row(id=None), row(id=None, question="Why?")])))
    assert names[0] == names[1]
    assert len(set(names[0])) == 2
    assert all(len(name) == 16 for name in names[0])


def test_id_by_content_changes_with_every_part_of_the_question(tmp_path):
    make_clips(tmp_path, "a.mp4", "b.mp4")
    changes = [{}, {"video": "b.mp4"}, {"options": None}, {"answer": "a cat"}, {"time_seconds": 1}, {"end_seconds": 1}]
    rows = [row(id=None, **change) for change in changes]
    assert len(set(ids(write_lines(tmp_path / "rows.jsonl", rows)))) == len(changes)


def test_license_of_the_row_goes_before_that_of_the_source(tmp_path):
    make_clips(tmp_path, "a.mp4")
    path = write_lines(tmp_path / "rows.jsonl", [row(license="MIT"), row(id="2")])
    assert [each.license for each in read(path)[0]] == ["MIT", "unknown"]
    assert [each.license for each in read(path, license="CC0-1.0")[0]] == ["MIT", "CC0-1.0"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"layout": "plain"}, "Expected a source with path, which is missing"),
        ({"path": "a.json", "layuot": "plain"}, "but got layuot"),
        ({"path": ""}, "`path` must be text that is not empty, got ''"),
        ({"path": ["a.json"]}, r"`path` must be text that is not empty, got \['a.json'\]"),
        ({"path": "a.json", "limit": 0}, "In a source: `limit` must be a whole number of 1 or more, got 0"),
        ({"path": "a.json", "limit": "all"}, "`limit` must be a whole number of 1 or more, got 'all'"),
        ({"path": "a.json", "limit": True}, "`limit` must be a whole number of 1 or more, got True"),
        ({"path": "a.json", "limit": 3, "seed": 0.5}, "`seed` must be a whole number, got 0.5"),
        ({"path": "a.json", "seed": 1}, "there is no limit"),
        ({"path": "a.json", "license": 4}, "`license` must be text, got 4"),
        (["a.json"], "a source as a mapping but got"),
    ],
)
def test_source_that_cannot_be_read_as_asked_says_why(content, message):
    with pytest.raises(ConfigurationError, match=message):
        SourceConfig.from_dict(content)


def test_source_survives_the_way_through_a_recipe():
    source = SourceConfig(path="a.json", layout="video_r1", limit=3, seed=1)
    assert SourceConfig.from_dict(json.loads(json.dumps(source.to_dict()))) == source


LONG = "What is it? " * 50  # so that a few hundred rows are longer than any buffer


def long_row(index: int) -> dict[str, object]:
    return row(id=str(index), question=LONG)


def write_json(path: Path, count: int) -> Path:
    with path.open("w") as file:
        file.write("[")
        for index in range(count):
            file.write(f"{',' if index else ''}{json.dumps(long_row(index))}\n")
        file.write("]")
    return path


def write_jsonl(path: Path, count: int) -> Path:
    return write_lines(path, (long_row(index) for index in range(count)))


def write_csv(path: Path, count: int) -> Path:
    lines = [f"{index},a.mp4,{LONG},a cat|a dog,B\n" for index in range(count)]
    path.write_text("id,video,question,options,answer\n" + "".join(lines))
    return path


def write_parquet(path: Path, count: int) -> Path:
    table = pyarrow.Table.from_pylist([long_row(index) for index in range(count)])
    pyarrow.parquet.write_table(table, path)
    return path


def peak_while_reading(path: Path) -> int:
    """Bytes that Python had at most while it read and forgot all annotations."""
    tracemalloc.start()
    try:
        count = sum(isinstance(each, Annotation) for each in read_annotations(SourceConfig(path=str(path))))
        assert count == int(path.stem)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("suffix", "write"),
    [("json", write_json), ("jsonl", write_jsonl), ("csv", write_csv), ("parquet", write_parquet)],
)
def test_ten_times_the_rows_need_no_more_memory(tmp_path, suffix: str, write: Callable[[Path, int], Path]):
    make_clips(tmp_path, "a.mp4")
    peak_while_reading(write(tmp_path / f"10.{suffix}", 10))  # imports and caches
    short = peak_while_reading(write(tmp_path / f"300.{suffix}", 300))
    long = peak_while_reading(write(tmp_path / f"3000.{suffix}", 3000))
    assert long < short + 200_000  # the rows themselves would be millions
