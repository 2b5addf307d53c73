import pytest

from storm_hf.errors import first_line, one_line


def test_an_error_of_several_lines_is_told_in_one():
    assert one_line(ValueError("Expected a\n  number,\tgot none. ")) == "Expected a number, got none."


def test_first_line_goes_on_in_another_sentence():
    assert first_line(OSError("\nno such file:\n  looked in a, b")) == "no such file"


@pytest.mark.parametrize(("tell", "said"), [(one_line, "KeyError."), (first_line, "KeyError")])
def test_an_error_that_says_nothing_is_told_by_its_class(tell, said):
    assert tell(KeyError()) == said
