import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from storm_hf.errors import DatasetError
from storm_hf.hub.published_shards import is_published, unpack, with_clips


ROWS = {
    "id": ["a", "b"],
    "video": ["a.mp4", None],
    **dict.fromkeys(("clip_source", "clip_license", "clip_file"), ["x"] * 2),
}


def write_shard(path, name):
    video = {"bytes": b"frames", "path": name}
    pq.write_table(pa.Table.from_pylist([{"id": "a", "video": video, "thought_video": None}]), path)
    return path


def test_bytes_become_a_file_where_the_row_says(tmp_path):
    shard = write_shard(tmp_path / "shard.parquet", "videos/clips/a.mp4")
    unpack(shard, tmp_path / "out")
    assert (tmp_path / "out" / "videos" / "clips" / "a.mp4").read_bytes() == b"frames"


@pytest.mark.parametrize("name", ["../a.mp4", "videos/../../a.mp4", "/a.mp4"])
def test_path_that_leads_out_is_refused(tmp_path, name):
    shard = write_shard(tmp_path / "shard.parquet", name)
    with pytest.raises(DatasetError, match="inside the data set"):
        unpack(shard, tmp_path / "out")
    assert not (tmp_path / "a.mp4").exists()


def test_rows_without_clip_are_left_out_with_a_warning():
    rows = Dataset.from_dict(ROWS)
    with pytest.warns(UserWarning, match="1 of 2 rows are left out"):
        assert with_clips(rows)["id"][:] == ["a"]
    assert with_clips(rows.select([0]))["id"][:] == ["a"]
    with pytest.raises(DatasetError, match="none of their clips"):
        with_clips(rows.select([1]))


def test_only_published_rows_are_known_as_such():
    rows = Dataset.from_dict(ROWS)
    assert is_published(rows)
    assert not is_published(rows.remove_columns("clip_file"))
