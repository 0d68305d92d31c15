"""One Kafka for all tests of this folder that are content with one broker."""

from collections.abc import Iterator

import pytest

from support.kafka import Cluster

# The contract's suite is imported by the drivers' tests: its asserts are to speak as theirs.
pytest.register_assert_rewrite("bus.contract_suite", "support.bus")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("kafka")) as cluster:
        yield cluster
