"""How much of a host the tenants of `sandpost selftest` take."""

from types import SimpleNamespace

import pytest

from sandpost.cli.attack import share
from sandpost.model.errors import ConfigError

GIB = 1 << 30


@pytest.mark.parametrize("cores", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("memory", [640 << 20, GIB, 16 * GIB, 512 * GIB])
def test_two_tenants_take_a_tenth_at_most(memory: int, cores: int) -> None:
    limits = share(SimpleNamespace(memory_limit=memory), cores)
    assert 32 << 20 <= limits["memory"] <= 128 << 20
    assert 2 * limits["memory"] <= memory / 10
    assert limits["cpu"] >= 0.05
    assert 2 * limits["cpu"] <= cores / 10 + 1e-9


def test_where_a_tenth_is_too_little_it_says_so() -> None:
    with pytest.raises(ConfigError, match=r"a tenth of this host's memory for sandboxes \(512MiB\) is too little"):
        share(SimpleNamespace(memory_limit=512 << 20), 1)


def test_of_a_controller_that_is_away_the_least_is_taken() -> None:
    assert share(None, 1) == {"memory": 32 << 20, "cpu": 0.05}
