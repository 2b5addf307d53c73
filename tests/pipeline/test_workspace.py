from storm_hf.pipeline import Workspace


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
