import json

import pytest

from storm_hf.errors import ConfigurationError, StaleWorkError
from storm_hf.pipeline import claim
from storm_hf.pipeline.workspace import FILE_NAME, hash_parameters


def test_order_of_parameters_does_not_matter(tmp_path):
    claim(tmp_path, "encode", {"a": 1, "b": (2, 3)})
    before = (tmp_path / FILE_NAME).read_bytes()
    claim(tmp_path, "encode", {"b": [2, 3], "a": 1})
    assert (tmp_path / FILE_NAME).read_bytes() == before


def test_changed_parameter_is_refused_with_its_old_and_new_value(tmp_path):
    claim(tmp_path, "encode", {"encoder": "x", "size": {"height": 28, "width": 28}})
    with pytest.raises(StaleWorkError, match=r"size\.height was 28 and is now 56") as error:
        claim(tmp_path, "encode", {"encoder": "x", "size": {"height": 56, "width": 28}})
    assert "width" not in str(error.value)


def test_only_what_changed_inside_a_list_is_named(tmp_path):
    before = {"sources": [{"path": "a.jsonl", "sha256": "1"}, {"path": "b.jsonl", "sha256": "2"}]}
    claim(tmp_path, "read", before)
    with pytest.raises(StaleWorkError, match=r"parameters: sources\.1\.sha256 was 2 and is now 3\. Use"):
        claim(tmp_path, "read", {"sources": [before["sources"][0], {"path": "b.jsonl", "sha256": "3"}]})


def test_added_and_removed_parameters_are_refused(tmp_path):
    claim(tmp_path, "encode", {"old": 1})
    with pytest.raises(StaleWorkError, match=r"new was nothing and is now 2; old was 1 and is now nothing"):
        claim(tmp_path, "encode", {"new": 2})


def test_steps_have_parameters_of_their_own(tmp_path):
    claim(tmp_path, "render", {"seed": 0})
    claim(tmp_path, "encode", {"seed": 1})
    assert set(json.loads((tmp_path / FILE_NAME).read_text())) == {"render", "encode"}


def test_hashes_tell_values_and_types_apart():
    assert len({hash_parameters(parameters) for parameters in ({"a": 1}, {"a": 2}, {"a": "1"}, {"b": 1})}) == 4


def test_workspace_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "data").touch()
    with pytest.raises(ConfigurationError, match="Expected the output to be a folder, .* is a file"):
        claim(tmp_path / "data", "encode", {})
