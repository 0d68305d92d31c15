"""A worker and the modules that programs choose: what it tells a runtime, and which sandbox a program goes to."""

import pytest

from sandpost.model.limits import Isolation
from sandpost.model.messages import Ask
from support.proxy import Rig, Sandbox, answer, at, eventually, run, says

NODE = b"// sandpost: modules=lodash@4.17.21,async\nreturn cb => cb(null, 1)"
ONE = b"# sandpost: language=python modules=httpx==0.28.1\ndef main(context): return 1"
OTHER = b"# sandpost: language=python modules=httpx==0.27.0\ndef main(context): return 2"
NONE = b"# sandpost: language=python\ndef main(context): return 3"


def test_a_load_says_which_modules_the_program_chooses() -> None:
    async def check() -> None:
        async with Sandbox(says(answer(b"js"))) as node, Rig() as rig:
            rig.controller.places["*"] = node.place
            assert (await rig.call(at("acme"), NODE)).status == 200
            assert (await rig.call(at("acme"), b"// other modules\nreturn cb => cb(null, 2)")).status == 200
            said = [load.headers.get(b"x-sandpost-modules") for load in node.loads]
            # All of them in the one sandbox.
            assert said == [b"async,lodash@4.17.21", None]
            assert [ask.modules for ask in rig.controller.all(Ask)] == [""]

    run(check())


def test_no_client_says_it() -> None:
    async def check() -> None:
        async with Sandbox(says(answer(b"js"))) as node, Rig() as rig:
            rig.controller.places["*"] = node.place
            sent = await rig.call(at("acme"), NODE, "POST", "x-sandpost-modules: evil@1.0.0")
            assert sent.status == 200
            assert [load.headers[b"x-sandpost-modules"] for load in node.loads] == [b"async,lodash@4.17.21"]
            assert all(b"x-sandpost-modules" not in call.headers for call in node.calls)

    run(check())


def test_each_set_of_python_has_a_sandbox_of_its_own() -> None:
    async def check() -> None:
        async with (
            Sandbox(says(answer(b"one"))) as one,
            Sandbox(says(answer(b"other"))) as other,
            Sandbox(says(answer(b"none"))) as none,
            Rig() as rig,
        ):
            places = {"httpx==0.28.1": one.place, "httpx==0.27.0": other.place, "python": none.place}
            rig.controller.places.update(places)
            for _ in range(2):
                for program, body in ((ONE, b"one"), (OTHER, b"other"), (NONE, b"none")):
                    assert (await rig.call(at("acme"), program)).body == body
            assert [ask.modules for ask in rig.controller.all(Ask)] == ["httpx==0.28.1", "httpx==0.27.0", ""]
            said = [[load.headers.get(b"x-sandpost-modules") for load in box.loads] for box in (one, other, none)]
            assert said == [[b"httpx==0.28.1"], [b"httpx==0.27.0"], [None]]

    run(check())


@pytest.mark.parametrize("isolation", ["per_tenant", "per_request"])
@pytest.mark.parametrize("known", ["loaded", "in memory", "on disk"])
def test_a_call_by_hash_goes_to_the_set_that_its_program_chose(known: str, isolation: Isolation) -> None:
    async def check() -> None:
        async with Sandbox(says(answer(b"one"))) as one, Sandbox(says(answer(b"none"))) as none, Rig() as rig:
            rig.tenant("acme", isolation)
            rig.controller.places.update({"httpx==0.28.1": one.place, "python": none.place})
            assert (await rig.call(at("acme"), NONE)).body == b"none"
            code = (await rig.call(at("acme"), ONE)).headers["x-sandpost-code"]
            if known != "loaded":
                for route in list(rig.controller.routes.values()):
                    if route.modules:
                        rig.controller.gone(route.sandbox_id, "idle")
                await eventually(lambda: isolation == "per_request" or len(rig.worker.routes.sandboxes) == 1)
            if known == "on disk":
                rig.worker.codes._kept.clear()
            seen = await rig.call(at("acme", f"webtask_code={code}"), b"", "GET")
            assert (seen.status, seen.body) == (200, b"one")
            assert len(none.loads) == 1

    run(check())
