import pyarrow
import pyarrow.parquet
import pytest
from tests.annotations.tiny_sources import make_clips, read

from storm_hf.errors import DatasetError


HEADER = "id,video,question,answer\n"
SOUND = "".join(f"{index},a.mp4,What is {index}?,x\n" for index in range(2, 502))


@pytest.fixture
def folder(tmp_path):
    make_clips(tmp_path, "a.mp4")
    return tmp_path


@pytest.mark.parametrize("first", ['1,a.mp4,"what?,x\n', '1,a.mp4,what?,"x\n'])
@pytest.mark.parametrize("behind", [SOUND, SOUND + '502,a.mp4,"Who, again?",x\n'])
def test_quote_that_is_not_closed_costs_its_own_line_and_says_what_it_took_in(folder, first, behind):
    (folder / "table.csv").write_text(HEADER + first + behind)
    kept, rejected = read(folder / "table.csv")
    assert [each.id for each in kept] == [str(index) for index in range(2, 2 + len(behind.splitlines()))]
    assert [(each.line, each.id) for each in rejected] == [(2, None)]
    assert f"took in {len(behind.splitlines())} lines behind it" in rejected[0].reason


def test_quote_that_takes_in_more_than_a_cell_may_hold_costs_its_own_line(folder):
    lines = "".join(f"{index},a.mp4,{'What? ' * 20},x\n" for index in range(2, 2002))
    (folder / "table.csv").write_text(HEADER + '1,a.mp4,"what?,x\n' + lines)
    kept, rejected = read(folder / "table.csv")
    assert (len(kept), [each.line for each in rejected]) == (2000, [2])


def test_every_line_with_an_open_quote_is_counted_on_its_own(folder):
    (folder / "table.csv").write_text(HEADER + '1,a.mp4,"what?,x\n2,a.mp4,so?,x\n3,a.mp4,"why?,x\n4,a.mp4,so?,x\n')
    kept, rejected = read(folder / "table.csv")
    assert [each.id for each in kept] == ["2", "4"]
    assert [each.line for each in rejected] == [2, 4]


def test_text_of_several_lines_in_quotes_is_one_row(folder):
    (folder / "table.csv").write_text(HEADER + '1,a.mp4,"Who\ncomes ""in""?",x\n2,a.mp4,So?,"y\n\nz"\n3,a.mp4,So?,x\n')
    kept, rejected = read(folder / "table.csv")
    assert rejected == []
    assert [(each.question, each.answer) for each in kept] == [
        ('Who\ncomes "in"?', "x"),
        ("So?", "y\n\nz"),
        ("So?", "x"),
    ]


def test_row_of_several_lines_with_too_few_cells_names_them(folder):
    (folder / "table.csv").write_text(HEADER + '1,a.mp4,"Who\ncomes?"\n2,a.mp4,So?,x\n')
    kept, rejected = read(folder / "table.csv")
    assert [each.id for each in kept] == ["2"]
    assert [(each.line, each.reason) for each in rejected] == [
        (2, "The row has 3 cells but the header has 4, in lines 2 to 3.")
    ]


def test_parquet_file_with_a_column_twice_is_refused_as_a_table_is(folder):
    cells = [pyarrow.array([value]) for value in ("1", "a.mp4", "q", "x", "y")]
    names = ["id", "video", "question", "answer", "answer"]
    pyarrow.parquet.write_table(pyarrow.table(cells, names=names), folder / "twice.parquet")
    with pytest.raises(DatasetError, match=r"twice\.parquet to have each column once but it has answer several times"):
        read(folder / "twice.parquet")


def test_whole_numbers_of_columns_with_empty_cells_name_ids_clips_and_answers(folder):
    """Such a column holds floats: 401 is 401.0 in it, and there is no clip of that name."""
    (folder / "layout.yaml").write_text(
        'fields: {id: qid, video: video, question: question, options: options, answer: answer}\nvideo_path: "{video}.mp4"\n'
        "join: {file: more.json, by: qid, name: question}\n"
    )
    (folder / "more.json").write_text('{"7": "How many?", "8": "How much?"}')
    make_clips(folder, "401.mp4")
    columns = {"qid": [7.0, 8.0, None], "video": [401.0, 401.0, None], "answer": [3.0, 2.5, None]}
    options = {"options": [[2.0, 3.0], None, None]}
    pyarrow.parquet.write_table(pyarrow.table(columns | options), folder / "rows.parquet")
    kept, rejected = read(folder / "rows.parquet", layout=str(folder / "layout.yaml"))
    assert [(each.id, each.video.name, each.options, each.answer) for each in kept] == [
        ("7", "401.mp4", ("2", "3"), "3"),
        ("8", "401.mp4", (), "2.5"),
    ]
    assert [each.line for each in rejected] == [3]
