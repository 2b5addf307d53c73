from pathlib import Path

import pytest
from tests.evaluation.world_checkpoint import save_world_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny STORM that was trained on the shuffle world, shared: read only."""
    return save_world_checkpoint(tmp_path_factory.mktemp("demo") / "storm")
