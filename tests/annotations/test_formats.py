import json

import datasets
import pyarrow.parquet
import pytest
from tests.annotations.tiny_sources import make_clips, read, row, write_lines

from storm_hf.annotations import load_layout
from storm_hf.annotations.readers import json_list
from storm_hf.annotations.record import Rejection, Row
from storm_hf.errors import ConfigurationError, DatasetError


ROWS = [row(id=str(index), question=f"What is {index}?", end_seconds=index + 1) for index in range(5)]


@pytest.fixture
def folder(tmp_path):
    make_clips(tmp_path, "a.mp4")
    return tmp_path


def write_table(path, delimiter):
    lines = [ROWS[0].keys(), *([*each.values()] for each in ROWS)]
    cells = [["|".join(cell) if isinstance(cell, list) else str(cell) for cell in line] for line in lines]
    path.write_text("".join(f"{delimiter.join(line)}\r\n" for line in cells))


def write_parquet(path, rows, **settings):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, **settings)


def test_every_form_of_file_says_the_same(folder):
    (folder / "list.json").write_text(json.dumps(ROWS, indent=1))
    (folder / "object.json").write_text(json.dumps({"info": {"data": [1]}, "data": ROWS, "rest": 1}))
    write_lines(folder / "lines.jsonl", ["", *ROWS])
    write_table(folder / "table.csv", ",")
    write_table(folder / "table.tsv", "\t")
    write_parquet(folder / "table.parquet", ROWS)
    names = ["list.json", "object.json", "lines.jsonl", "table.csv", "table.tsv", "table.parquet"]
    results = [read(folder / name, name="same") for name in names]
    assert all(result == results[0] for result in results)
    assert [each.id for each in results[0][0]] == list("01234")
    assert results[0][0][3].options == ("a cat", "a dog")


def test_folders_of_datasets_are_read_without_decoding_a_video(folder):
    (folder / "parquet").mkdir()
    write_parquet(folder / "parquet" / "train.parquet", ROWS)
    rows = datasets.Dataset.from_list([each | {"video": str(folder / "a.mp4")} for each in ROWS])
    rows = rows.cast_column("video", datasets.Video(decode=True))
    datasets.DatasetDict(train=rows).save_to_disk(str(folder / "saved"))
    for name in ("parquet", "saved"):
        kept, rejected = read(folder / name, video_root=str(folder), name="same")
        assert rejected == []
        assert kept == read(write_lines(folder / "rows.jsonl", ROWS), name="same")[0]


def test_missing_split_of_a_folder_is_an_error_that_names_it(folder):
    (folder / "data").mkdir()
    write_lines(folder / "data" / "train.jsonl", ROWS)
    with pytest.raises(DatasetError, match="with the split 'dev'"):
        read(folder / "data", split="dev")


def test_data_set_on_the_hub_needs_a_folder_of_clips():
    with pytest.raises(ConfigurationError, match="someone/videos has no clips on this machine. Say with video_root"):
        read("someone/videos")


@pytest.mark.parametrize("name", ["none.jsonl", "notes.txt", "no such folder/at all"])
def test_path_that_is_nothing_to_read_is_an_error_that_names_it(folder, name):
    (folder / "notes.txt").write_text("hello")
    with pytest.raises((DatasetError, ConfigurationError), match=name):
        read(folder / name)


def test_bytes_that_are_no_utf8_cost_their_own_row(folder):
    texts = [json.dumps(each).encode() for each in ROWS]
    texts[1] = texts[1].replace(b"What", b"Wh\xe9t")
    (folder / "lines.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\n".join(texts))
    (folder / "list.json").write_bytes(b"\xef\xbb\xbf[" + b",".join(texts) + b"]")
    write_table(folder / "table.csv", ",")
    (folder / "table.csv").write_bytes((folder / "table.csv").read_bytes().replace(b"What is 1", b"Wh\xe9t is 1"))
    for name, line in [("lines.jsonl", 2), ("list.json", 2), ("table.csv", 3)]:
        kept, rejected = read(folder / name)
        assert [each.id for each in kept] == ["0", "2", "3", "4"]
        assert [(each.line, each.reason) for each in rejected] == [(line, "The question is not valid UTF-8.")]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"id": "1"', "The line is no valid JSON: expecting ',' delimiter."),
        ("[" * 100_000, "The line is no valid JSON: nested too deeply."),
        ("[" + "9" * 5000 + "]", "The line is no valid JSON: a number too long."),
        ('["1"]', "The row should be an object but is of the type list."),
    ],
)
def test_line_that_is_no_row_is_rejected_with_its_number(folder, text, reason):
    kept, rejected = read(write_lines(folder / "rows.jsonl", [ROWS[0], "", text, ROWS[1]]))
    assert [each.id for each in kept] == ["0", "1"]
    assert [(each.line, each.id, each.reason) for each in rejected] == [(3, None, reason)]


@pytest.mark.parametrize("name", ["lines.jsonl", "list.json"])
def test_row_with_a_key_twice_is_rejected_and_costs_no_other(folder, name):
    """Python would take the last value: another answer, or a question with an option less."""
    texts = [json.dumps(each) for each in ROWS]
    texts[1] = texts[1].replace('"answer": "a dog"', '"answer": "a cat", "answer": "a dog"')
    texts[3] = texts[3].replace('["a cat", "a dog"]', '{"A": "a cat", "B": "a dog", "B": "a bird"}')
    (folder / "lines.jsonl").write_text("\n".join(texts))
    (folder / "list.json").write_text(f"[{', '.join(texts)}]")
    kept, rejected = read(folder / name)
    assert [each.id for each in kept] == ["0", "2", "4"]
    assert [(each.line, each.id, each.reason) for each in rejected] == [
        (2, "1", "The row has the key 'answer' twice."),
        (4, "3", "The row has the key 'B' twice."),
    ]


@pytest.mark.parametrize(("end", "kept_rows", "row_number"), [(-1, 5, 5), (-30, 4, 5), (20, 0, 1)])
def test_list_that_breaks_off_keeps_the_rows_before(folder, end, kept_rows, row_number):
    (folder / "list.json").write_text(json.dumps(ROWS)[:end])
    kept, rejected = read(folder / "list.json")
    assert [each.id for each in kept] == list("01234")[:kept_rows]
    assert [each.line for each in rejected] == [row_number]
    assert f"no valid JSON in or after row {row_number}" in rejected[0].reason


def test_nan_in_a_list_is_a_time_that_is_not_known(folder):
    (folder / "list.json").write_text(json.dumps([row(id="0", time_seconds=float("nan")), row()]))
    kept, rejected = read(folder / "list.json")
    assert [each.time_seconds for each in kept] == [None, None]
    assert rejected == []


@pytest.mark.parametrize("text", ["", "3", '{"rows": []}', '{"data": {}}', "{data: []}", '{"data"'])
def test_json_without_a_list_of_rows_is_an_error_that_names_the_file(folder, text):
    (folder / "list.json").write_text(text)
    with pytest.raises(DatasetError, match=r"list\.json to be a list of rows"):
        read(folder / "list.json")


def test_empty_list_has_no_rows(folder):
    (folder / "list.json").write_text(' {"data": [ ]}')
    assert read(folder / "list.json") == ([], [])


def test_window_of_any_size_shows_the_same_rows(folder, monkeypatch):
    values = [{"a": "]},[{"}, 123456789, {"b": {"c": [1.5e3, None]}}, "x" * 90, {"a": "é"}]
    (folder / "list.json").write_text(json.dumps({"other": values, "count": 123456789, "data": values}, indent=3))
    for size in range(1, 100):
        monkeypatch.setattr("storm_hf.annotations.readers._CHUNK", size)
        results = list(json_list(folder / "list.json", "data"))
        assert [each.content for each in results if isinstance(each, Row)] == [values[0], values[2], values[4]]
        assert [each.line for each in results if isinstance(each, Rejection)] == [2, 4]


def test_table_row_of_other_length_is_rejected_with_the_line_it_begins_on(folder):
    text = (
        'id,video,question,answer\n0,a.mp4,"Who\ncomes?",a man\n1,a.mp4,Who?\n2,a.mp4,Who?,he,she\n3,a.mp4,Why?,so\n'
    )
    (folder / "table.csv").write_text(text)
    kept, rejected = read(folder / "table.csv")
    assert [each.question for each in kept] == ["Who\ncomes?", "Why?"]
    assert [(each.line, each.id, each.reason) for each in rejected] == [
        (4, "1", "The row has 3 cells but the header has 4."),
        (5, "2", "The row has 5 cells but the header has 4."),
    ]


@pytest.mark.parametrize("text", ["", "\n1,2\n", "id,id\n1,2\n", "x" * 200_000])
def test_table_without_a_header_is_an_error(folder, text):
    (folder / "table.csv").write_text(text)
    with pytest.raises(DatasetError, match=r"table\.csv"):
        read(folder / "table.csv")


def test_cell_beyond_all_measure_is_rejected(folder):
    (folder / "table.csv").write_text(f"id,video,question,answer\n0,a.mp4,{'x' * 200_000},a\n1,a.mp4,Why?,so\n")
    kept, rejected = read(folder / "table.csv")
    assert [each.id for each in kept] == ["1"]
    assert [(each.line, each.reason[:35]) for each in rejected] == [(2, "The line is no valid table row: fie")]


def test_broken_row_group_of_a_parquet_file_costs_its_own_rows(folder):
    rows = [row(id=str(index), question=f"{index}".rjust(500, "q")) for index in range(6)]
    rows[5]["answer"] = "Z"
    path = folder / "table.parquet"
    write_parquet(path, rows, row_group_size=2, compression="none", use_dictionary=False)
    content = bytearray(path.read_bytes())
    start = content.index(rows[2]["question"].encode()) - 60
    content[start : start + 60] = b"\xff" * 60  # the header of a page
    path.write_bytes(content)
    kept, rejected = read(path)
    assert [each.id for each in kept] == ["0", "1", "4"]
    assert [each.line for each in rejected] == [3, 6]
    assert rejected[0].reason.startswith("Rows 3 to 4 cannot be read")


def test_text_of_a_parquet_row_that_is_no_utf8_costs_its_own_row(folder):
    path = folder / "table.parquet"
    write_parquet(path, ROWS, compression="none", use_dictionary=False)
    path.write_bytes(path.read_bytes().replace(b"What is 1?", b"Wh\xe9t is 1?"))
    kept, rejected = read(path)
    assert [each.id for each in kept] == ["0", "2", "3", "4"]
    assert [(each.line, each.reason) for each in rejected] == [(2, "The row has text that is not valid UTF-8.")]


def test_file_that_is_no_parquet_is_an_error_that_names_it(folder):
    (folder / "table.parquet").write_bytes(b"PAR1 it is not")
    with pytest.raises(DatasetError, match=r"table\.parquet to be a Parquet file"):
        read(folder / "table.parquet")


def test_table_is_read_without_the_columns_that_no_field_needs():
    layout = load_layout("llava_video_178k")
    assert layout.columns(["frames", "video", "conversations", "data_source"]) == [
        "video",
        "conversations",
        "data_source",
    ]
