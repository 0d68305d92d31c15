"""A worker before the real runtime: a program in, JSON out."""

from support.proxy import HELLO, KEY, Rig, Sandbox, answer, at, real_runtime, run, says


def test_a_program_comes_in_and_json_goes_out() -> None:
    async def check() -> None:
        async with real_runtime() as place, Rig() as rig:
            rig.controller.places["*"] = place
            connection = await rig.connect()
            for _ in range(3):
                seen = await connection.call(at("acme"), HELLO)
                assert (seen.status, seen.body) == (200, b'"Hello, world!"')
                assert seen.headers["x-wt-response-source"] == "webtask"
                assert len(seen.headers["x-sandpost-code"]) == 64
                assert seen.headers["content-type"] == "application/json"
                ours = {name for name in seen.headers if name.startswith("x-sandpost")}
                assert ours == {"x-sandpost-code", "x-sandpost-req"}
            assert rig.controller.made == 1

    run(check())


def test_the_program_sees_neither_key_nor_the_platforms_headers() -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            seen = await rig.call(
                "/acme/rest?a=b&webtask_x=1", HELLO, "POST", f"Authorization: Bearer {KEY}", "X-Sandpost-Op: load"
            )
            assert seen.status == 200
            call = sandbox.calls[0]
            assert call.line == b"POST /acme/rest?a=b HTTP/1.1"
            assert b"authorization" not in call.headers
            assert call.headers[b"x-sandpost-op"] == b"call"
            assert call.headers[b"content-length"] == b"0"
            assert KEY.encode() not in b"".join(call.headers.values()) + call.line

    run(check())
