"""One thread for all numbers: with more, waiting for cores that others use makes small tensors ten times slower."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.engine.jobs import SPEC, Job, carried_out


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A whole small job, done once."""
    return carried_out(SPEC, tmp_path_factory.mktemp("job"))
