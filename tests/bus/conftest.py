"""The contract's suite is imported by the drivers' tests: its asserts are to speak as theirs."""

import pytest

pytest.register_assert_rewrite("bus.contract_suite", "support.bus")
