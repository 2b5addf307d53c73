from storm_hf.pipeline import Workspace
from storm_hf.pipeline.workspace import write_json


def test_equal_content_gives_equal_json(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1, "y": [2]})
    write_json(tmp_path / "b.json", {"y": [2], "x": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_half_written_shards_are_not_listed_and_can_be_removed(tmp_path):
    workspace = Workspace(tmp_path)
    shard, half = workspace.shard("step", "b"), workspace.shard("step", ".c.7.unfinished")
    shard.parent.mkdir()
    shard.write_text("whole")
    half.write_text("half")
    assert workspace.shards("step") == [shard]
    workspace.remove_unfinished("step")
    assert not half.exists()
    assert shard.exists()
