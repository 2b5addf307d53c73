import json

import pytest
from typer.testing import CliRunner

from storm_hf.atomic import write_json
from storm_hf.builder.progress import ANNOTATIONS, THOUGHTS, Refused
from storm_hf.builder.row_steps import write_records
from storm_hf.cli import app
from storm_hf.pipeline import Workspace, claim


def status(*arguments):
    return CliRunner().invoke(app, ["build", "status", *map(str, arguments)])


@pytest.mark.parametrize("exists", [True, False])
def test_folder_that_is_no_build_is_told_in_one_line_with_code_2(tmp_path, exists):
    result = status(tmp_path if exists else tmp_path / "nowhere")
    assert result.exit_code == 2
    assert "Expected the folder of a build" in result.output
    assert len(result.output.splitlines()) == 1


def test_build_that_has_just_begun_has_unknown_counts(tmp_path):
    claim(tmp_path, "work/10_annotations", {"rows_per_shard": 64})
    table = status(tmp_path)
    assert table.exit_code == 0
    assert "0/-" in table.output
    assert "rows_per_shard" not in table.output
    assert "10_annotations: rows_per_shard=64" in status(tmp_path, "--parameters").output


def test_status_is_json_for_programs(tmp_path):
    claim(tmp_path, "work/10_annotations", {"rows_per_shard": 64})
    content = json.loads(status(tmp_path, "--json").output)
    assert content["is_complete"] is False
    assert content["steps"][0]["parameters"] == {"rows_per_shard": 64}


def test_retry_of_what_is_no_build_is_told_in_one_line(tmp_path):
    result = CliRunner().invoke(app, ["build", "retry", str(tmp_path), "--reason", "unreadable"])
    assert result.exit_code == 2
    assert result.output.startswith("storm: Expected the folder of a build")
    assert len(result.output.splitlines()) == 1


def test_retry_says_how_many_rows_will_be_tried_again(tmp_path):
    workspace = Workspace(tmp_path)
    write_json(workspace.shard(ANNOTATIONS, "index.json"), {"num_rows": {"train-00000": 3}})
    shard = workspace.shard(THOUGHTS, "train-00000.jsonl")
    shard.parent.mkdir(parents=True)
    refused = [
        Refused(step=THOUGHTS, split="train", source="s", reason=f"{kind}: x") for kind in ("unreadable", "static")
    ]
    write_records(shard, refused, tmp_path)
    result = CliRunner().invoke(app, ["build", "retry", str(tmp_path), "--reason", "unreadable"])
    assert (result.exit_code, result.output[:28]) == (0, "1 rows will be tried again. ")
    assert not shard.exists()
