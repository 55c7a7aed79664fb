from collections.abc import Iterator
from pathlib import Path

import pytest

from covent.tasks import ClockTask
from tests.support.interrupted import chance_verdict


@pytest.fixture(autouse=True, scope="module")
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Warm starts are cached in a folder of the tests, never in the developer's own cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(autouse=True, scope="module")
def right_by_chance() -> Iterator[None]:
    """Rewards that differ within a group without any training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClockTask, "verdict", chance_verdict)
        yield
