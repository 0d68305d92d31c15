"""What names a module, what does not and is told, and which version is newer."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpost.model.errors import InvalidName, InvalidValue, SandpostError
from sandpost.model.specs import Spec, ordered, parse_spec


@pytest.mark.parametrize(
    ("text", "spec", "folder"),
    [
        ("npm:lodash@4.17.21", "npm:lodash@4.17.21", "npm/lodash/4.17.21"),
        ("npm:socket.io@4.8.4", "npm:socket.io@4.8.4", "npm/socket.io/4.8.4"),
        ("npm:@scope/x@1.0.0-rc.1", "npm:@scope/x@1.0.0-rc.1", "npm/@scope/x/1.0.0-rc.1"),
        ("npm:JSONStream@1.3.5", "npm:JSONStream@1.3.5", "npm/JSONStream/1.3.5"),
        ("pypi:httpx==0.28.1", "pypi:httpx==0.28.1", "pypi/httpx/0.28.1"),
        ("pypi:Ruamel_Yaml.Clib==0.2.12.post1", "pypi:ruamel-yaml-clib==0.2.12.post1", None),
        ("pypi:torch==2.1.0+CPU", "pypi:torch==2.1.0+cpu", "pypi/torch/2.1.0+cpu"),
        ("pypi:x==1!2.0RC1", "pypi:x==1!2.0rc1", "pypi/x/1!2.0rc1"),
    ],
)
def test_a_spec_has_one_form_and_a_folder_of_its_own(text: str, spec: str, folder: str | None) -> None:
    found = parse_spec(text)
    assert str(found) == spec
    assert parse_spec(spec) == found
    assert folder in {None, found.folder}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("lodash", "is no module: write one such as `npm:lodash@4.17.21`"),
        ("lodash@4.17.21", "is no module"),
        ("gem:rails==7.0.0", "is no module"),
        ("npm:lodash", "there is no version: write the exact one, like `npm:lodash@1.2.3`"),
        ("npm:lodash@", "there is no version"),
        ("npm:@scope/x", "there is no version"),
        ("npm:lodash@^4.17.0", "`^4.17.0` is a range"),
        ("npm:lodash@4.x", "is a range"),
        ("npm:lodash@>=4", "is a range"),
        ("npm:lodash@*", "is a range"),
        ("npm:lodash@4", "is no version"),
        ("npm:lodash@latest", "is no version"),
        ("npm:lodash@04.1.1", "is no version"),
        ("npm:lodash@1.0.0-01", "is no version"),
        ("npm:lodash@1.0.0+build", "is no version"),
        ("npm:lodash@1.0.0-" + "a" * 60, "is no version"),
        ("npm:lodash@npm:other@1.0.0", "is no name"),
        ("npm:../../etc@1.0.0", "is no name"),
        ("npm:..@1.0.0", "is no name"),
        ("npm:.bin@1.0.0", "is no name"),
        ("npm:_x@1.0.0", "is no name"),
        ("npm:--registry@1.0.0", "is no name"),
        ("npm:a/b@1.0.0", "is no name"),
        ("npm:@/x@1.0.0", "is no name"),
        ("npm:@scope/../x@1.0.0", "is no name"),
        ("npm:node_modules@1.0.0", "is no name"),
        ("npm:" + "a" * 215 + "@1.0.0", "214 at most"),
        ("npm:a b@1.0.0", "is no name"),
        ("npm:a\nb@1.0.0", "is no name"),
        ("npm:l\u00f6dash@1.0.0", "is no name"),
        ("npm:https://example.com/x.tgz@1.0.0", "is no name"),
        ("pypi:httpx", "there is no version: write the exact one, like `pypi:httpx==1.2.3`"),
        ("pypi:httpx>=0.28", "`>=0.28` is a range"),
        ("pypi:httpx==0.*", "is a range"),
        ("pypi:httpx~=0.28", "is a range"),
        ("pypi:httpx==x", "is"),
        ("pypi:httpx[http2]==0.28.1", "is no name"),
        ("pypi:httpx==0.28.1; python_version>'3'", "is"),
        ("pypi:-x==1.0", "is no name"),
        ("pypi:x-==1.0", "is no name"),
        ("pypi:../x==1.0", "is no name"),
        ("pypi:x @ file:///etc==1", "is no name"),
    ],
)
def test_what_is_no_exact_version_of_a_package_is_told_with_what_to_write(text: str, told: str) -> None:
    with pytest.raises((InvalidName, InvalidValue)) as caught:
        parse_spec(text)
    assert told in caught.value.message
    assert "\n" not in caught.value.message


@given(st.text(max_size=60), st.sampled_from(["npm:", "pypi:", ""]))
def test_whatever_is_written_is_a_spec_with_a_plain_folder_or_refused(text: str, prefix: str) -> None:
    try:
        spec = parse_spec(prefix + text)
    except SandpostError:
        return
    parts = spec.folder.split("/")
    assert len(parts) in {3, 4}
    assert all(part not in {"", ".", ".."} and part.isascii() and part.isprintable() for part in parts)
    assert not any(part.startswith((".", "-")) for part in parts)
    assert parse_spec(str(spec)) == spec


def test_versions_are_ordered_as_their_registries_do() -> None:
    npm = ["0.9.9-a", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta.2", "1.0.0-beta.11"]
    npm += ["0.9.9", "1.0.0", "1.9.0", "1.10.0"]
    pypi = ["1.0.dev1", "1.0a1", "2.0rc1", "0.9", "1.9", "1.10", "1.10.post1", "1!0.1"]
    for registry, wanted in (("npm", npm), ("pypi", pypi)):
        mixed = random.Random(7).sample(wanted, len(wanted))
        assert ordered(registry, mixed) == wanted  # type: ignore[arg-type]


def test_a_pre_release_is_the_newest_only_where_there_is_nothing_else() -> None:
    assert ordered("npm", ["1.0.0", "2.0.0-rc.1"])[-1] == "1.0.0"
    assert ordered("npm", ["2.0.0-rc.1", "1.0.0-rc.1"])[-1] == "2.0.0-rc.1"
    assert ordered("pypi", ["1.0", "2.0rc1"])[-1] == "1.0"


def test_a_spec_tells_its_registry_apart() -> None:
    assert Spec("npm", "x", "1.0.0") != Spec("pypi", "x", "1.0.0")
