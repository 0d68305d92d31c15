"""The runtimes, which have no libraries of ours, order versions as the platform does."""

import json
import re
import subprocess
from pathlib import Path

from bench.running import node_binary
from hypothesis import given, settings
from hypothesis import strategies as st

from sandpost.model.specs import ordered
from sandpost.runtimes.python import modules as python

NODE = Path(__file__).parents[2] / "src" / "sandpost" / "runtimes" / "node" / "specifiers.js"
SORT = f"""
const {{ compare, versionOf }} = require({str(NODE)!r});
const lists = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const by = (a, b) => compare(versionOf(a), versionOf(b));
process.stdout.write(JSON.stringify(lists.map((list) => list.sort(by))));
"""

number = st.integers(0, 12)
word = st.sampled_from(["alpha", "beta", "rc", "x-1", "a", "A", "0a", "-"])
semver = st.builds(
    lambda core, pre: ".".join(map(str, core)) + ("-" + ".".join(map(str, pre)) if pre else ""),
    st.tuples(number, number, number),
    st.lists(number | word, max_size=3),
)


def test_node_orders_versions_of_npm_as_the_platform_does() -> None:
    lists: list[list[str]] = []

    @settings(max_examples=300, database=None)
    @given(st.lists(semver, min_size=2, max_size=6, unique=True))
    def draw(versions: list[str]) -> None:
        lists.append(versions)

    draw()
    done = subprocess.run(
        [node_binary(), "-e", SORT], input=json.dumps(lists), capture_output=True, text=True, check=True
    )
    for given_list, sorted_list in zip(lists, json.loads(done.stdout), strict=True):
        assert sorted_list == ordered("npm", given_list)


pep440 = st.builds(
    lambda epoch, release, pre, post, dev, local: f"{epoch}{'.'.join(map(str, release))}{pre}{post}{dev}{local}",
    st.sampled_from(["", "", "1!"]),
    st.lists(number, min_size=1, max_size=3),
    st.sampled_from(["", "", "a1", "a2", "b1", "rc1", "rc10"]),
    st.sampled_from(["", "", ".post1", ".post2"]),
    st.sampled_from(["", "", ".dev1", ".dev10"]),
    st.sampled_from(["", "", "+local", "+1", "+local.2"]),
)


@given(st.lists(pep440, min_size=2, max_size=6, unique_by=lambda text: re.sub(r"(\.0)+(?=$|[a-z+.])", "", text)))
def test_python_orders_versions_of_pypi_as_the_platform_does(versions: list[str]) -> None:
    expected = ordered("pypi", versions)
    found = sorted(versions, key=python._order)
    assert found == expected
