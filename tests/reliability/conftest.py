from pathlib import Path

import pytest

from covent.tasks import ClockTask
from tests.support.interrupted import chance_verdict


@pytest.fixture(autouse=True, scope="session")
def cache_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Warm starts are cached in a folder of the test session, never in the developer's own cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(autouse=True, scope="module")
def right_by_chance() -> None:
    """Rewards that differ within a group without any training; for the modules in this folder alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClockTask, "verdict", chance_verdict)
        yield
