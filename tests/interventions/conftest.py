import pytest
from tests.diagnostics.thinker import Thinker, make_thinker


@pytest.fixture(scope="session")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Thinker:
    """A random STORM and five clips, shared: a test that changes a model builds its own."""
    return make_thinker(tmp_path_factory.mktemp("thinker"))
