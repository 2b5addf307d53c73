import pytest

from storm_hf.errors import DatasetError
from storm_hf.evaluation.question_file import WrittenQuestion, read_question_file


@pytest.fixture
def write(tmp_path):
    def make(name, text):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return make


def test_each_line_of_text_is_a_question_and_empty_ones_are_none(write):
    path = write("questions.txt", '\nWho enters?\n  \n {"question": "?"} \r\n誰が?\n')
    assert [question.text for question in read_question_file(path)] == ["Who enters?", '{"question": "?"}', "誰が?"]


def test_json_lines_have_options_where_they_are_given(write):
    path = write("questions.jsonl", '{"question": "Where?", "options": ["left", "right"]}\n\n{"question": " Who? "}\n')
    assert read_question_file(path) == [WrittenQuestion("Where?", ("left", "right")), WrittenQuestion("Who?")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("Who enters?", "line 2: expected a JSON object with `question`, got no JSON"),
        ('["Who?"]', 'line 2: expected a JSON object like .*, got \\["Who\\?"\\]'),
        ('{"text": "Who?"}', "line 2: expected a JSON object like"),
        ('{"question": " "}', "line 2: expected a JSON object like"),
        ('{"question": "Who?", "answer": "me"}', "line 2: expected `question` and `options` alone, got 'answer'"),
        (
            '{"question": "Who?", "options": ["me"]}',
            'line 2: expected `options` to be two texts or more, got \\["me"\\]',
        ),
        (
            '{"question": "Who?", "options": ["me", "me"]}',
            'line 2: expected `options` that differ, got \\["me", "me"\\]',
        ),
        ('{"question": "Who?", "options": "me"}', "line 2: expected `options`"),
        ('{"question": "Who?", "options": [1, 2]}', "line 2: expected `options`"),
        ('{"question": "Who?", "options": ["", " "]}', "line 2: expected `options`"),
        ('{"question": "Who?", "options": false}', "line 2: expected `options`"),
        ("[" * 100_000, "line 2: expected a JSON object with `question`, got no JSON"),
    ],
)
def test_line_of_another_form_is_refused_by_its_number(write, line, reason):
    with pytest.raises(DatasetError, match=f"questions.jsonl, {reason}"):
        read_question_file(write("questions.jsonl", f'{{"question": "Where?"}}\n{line}\n'))


@pytest.mark.parametrize("name", ["questions.txt", "questions.jsonl", "QUESTIONS.JSONL"])
def test_file_of_windows_is_read_like_any_other(write, name):
    line = "Who enters?" if name.endswith(".txt") else '{"question": "Who enters?"}'
    path = write(name, b"\xef\xbb\xbf" + f"{line}\r\n\r\n{line}\r\n".encode())
    assert read_question_file(path) == [WrittenQuestion("Who enters?")] * 2


def test_line_ends_of_unicode_stay_in_their_question(write):
    assert read_question_file(write("q.jsonl", '{"question": "Who\u2028enters?"}\n')) == [
        WrittenQuestion("Who\u2028enters?")
    ]


def test_half_of_a_character_is_replaced_and_a_whole_one_stays(write):
    path = write("q.jsonl", r'{"question": "Who \ud800?", "options": ["\ud83d\ude00", "b\udfff"]}')
    assert read_question_file(path) == [
        WrittenQuestion("Who \N{REPLACEMENT CHARACTER}?", ("😀", "b\N{REPLACEMENT CHARACTER}"))
    ]


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_file_without_a_question_is_refused(write, content):
    with pytest.raises(DatasetError, match="has none. Write at least one"):
        read_question_file(write("questions.txt", content))


def test_file_that_is_missing_or_no_text_is_refused(write, tmp_path):
    with pytest.raises(DatasetError, match=r"missing.txt cannot be read \(No such file"):
        read_question_file(tmp_path / "missing.txt")
    with pytest.raises(DatasetError, match="cannot be read: .*utf-8"):
        read_question_file(write("questions.txt", b"\xff\xfe"))
