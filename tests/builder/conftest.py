import pytest
from tests.builder.tiny_build import clips_and_annotations, tiny_recipe

from storm_hf.builder import ThoughtsBuilder


@pytest.fixture(scope="session")
def annotations(tmp_path_factory):
    """Ten questions about ten clips, shared: read only."""
    return clips_and_annotations(tmp_path_factory.mktemp("clips"), 10)


@pytest.fixture(scope="session")
def built(annotations, qwen_checkpoint, tmp_path_factory):
    """A finished data set, shared: read only."""
    folder = tmp_path_factory.mktemp("built") / "data"
    ThoughtsBuilder(tiny_recipe(annotations, qwen_checkpoint, folder)).build()
    return folder
