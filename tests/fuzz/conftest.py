import pytest
from fuzzing import write_counts


@pytest.hookimpl
def pytest_sessionfinish() -> None:
    write_counts()
