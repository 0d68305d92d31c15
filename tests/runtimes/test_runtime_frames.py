"""Log records: frames on descriptor 3, raw output on 1 and 2, and what happens when nobody reads."""

import pytest

from support.runtime import FRAME, Record, Runtime, StartRuntime, parse_frames

OK = "return cb => cb(null, 'ok')"


@pytest.mark.parametrize(
    ("say", "level", "text"),
    [
        ("console.error('e', 1)", 50, "e 1"),
        ("console.warn('w')", 40, "w"),
        ("console.log('%s is %d', 'a', 5)", 30, "a is 5"),
        ("console.info({ a: [1] })", 30, "{ a: [ 1 ] }"),
        ("console.debug('d')", 20, "d"),
        ("console.assert(false, 'x')", 40, "Assertion failed: x"),
        ("console.count('c')", 30, "c: 1"),
        ("console.dir([1])", 30, "[ 1 ]"),
        ("console.group('g')", 30, "g"),
        ("console.log('two\\nlines\\n')", 30, "two\nlines\n"),
        ("console.log('')", 30, ""),
        ("console.log('\u00fc\U0001f600')", 30, "\u00fc\U0001f600"),
        ("console.trace('t')", 10, "Trace: t\n    at webtask.js:1:24"),
        ("require('console').log('same')", 30, "same"),
        ("console.log(new Error('x').message)", 30, "x"),
    ],
)
def test_console_methods_have_levels(runtime: Runtime, say: str, level: int, text: str) -> None:
    runtime.call(f"return cb => {{ {say}; cb(); }}", req_id="r-log")
    assert runtime.records() == [Record(level, "r-log", text)]


TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize(
    ("headers", "req_id"),
    [
        ({"x-sandpost-trace": TRACE}, f"r-trace {TRACE}"),
        ({}, "r-trace"),
        # What would not fit into a frame is left out.
        ({"x-sandpost-trace": TRACE * 2}, "r-trace"),
    ],
)
def test_a_record_of_a_traced_call_names_its_trace(runtime: Runtime, headers: dict[str, str], req_id: str) -> None:
    code = "return (c, cb) => { console.log(c.id, Object.keys(c.headers).filter((n) => /trace/.test(n))); cb(new Error('no')) }"
    answer = runtime.call(code, headers=headers, req_id="r-trace")
    assert answer.json["req_id"] == "r-trace"
    said, failed = runtime.records(lambda found: len(found) == 2)
    assert said == Record(30, req_id, "r-trace []")
    assert (failed.level, failed.req_id) == (50, req_id)


def test_groups_indent(runtime: Runtime) -> None:
    runtime.call(
        "return cb => { console.group('g'); console.warn('in'); console.groupEnd(); console.log('out'); cb(); }"
    )
    records = runtime.records(lambda found: len(found) == 3)
    assert [record.text for record in records] == ["g", "  in", "out"]


def test_a_record_belongs_to_the_call_that_wrote_it(runtime: Runtime) -> None:
    code = """return (c, cb) => {
        console.log('now', c.data.n);
        setTimeout(async () => { await null; console.log('later', c.data.n); cb(); }, 20 - 10 * c.data.n); }"""
    with (
        runtime.begin(code, target="/a?n=1", req_id="one") as one,
        runtime.begin(code, target="/a?n=2", req_id="two") as two,
    ):
        one.answer()
        two.answer()
    records = runtime.records(lambda found: len(found) == 4)
    assert {(record.req_id, record.text) for record in records} == {
        ("one", "now 1"), ("one", "later 1"), ("two", "now 2"), ("two", "later 2")
    }  # fmt: skip


@pytest.mark.parametrize(
    "where",
    [
        "req.on('data', say); req.on('end', () => res.end())",
        "req.on('end', () => { say(); res.end(); }); req.resume()",
        "res.on('finish', say); res.end()",
        "(async () => { for await (const chunk of req) say(); res.end(); })()",
        "req.pipe(new (require('stream').Writable)({ write(c, e, done) { say(); done(); } })).on('finish', () => res.end())",
    ],
)
def test_listeners_on_request_and_response_belong_to_the_call(runtime: Runtime, where: str) -> None:
    code = f"return (context, req, res) => {{ const say = () => console.log('here'); {where}; }}"
    runtime.call(code, "POST", body=b"x", req_id="r-listen")
    assert runtime.records() == [Record(30, "r-listen", "here")]


def test_what_no_call_wrote_has_no_request_id(runtime: Runtime) -> None:
    runtime.call("process.on('custom', () => console.log('nobody')); return cb => cb()")
    assert runtime.call("return cb => { process.emit('custom'); cb(); }", req_id="emitter").status == 200
    assert runtime.records() == [Record(30, "emitter", "nobody")]


@pytest.mark.parametrize("req_id", ["", "x" * 65, "with space"])
def test_a_request_id_that_is_none_is_left_out(runtime: Runtime, req_id: str) -> None:
    answer = runtime.call("return cb => cb('e')", req_id=req_id)
    assert "req_id" not in answer.json
    assert runtime.records()[0].req_id == ""


@pytest.mark.parametrize("length", [0, 1, 1360, 1361, 4000, 4081, 4082, 4083, 5000, 60_000, 65_536])
def test_long_records_are_split_into_frames_and_whole_again(runtime: Runtime, length: int) -> None:
    runtime.call(f"return cb => {{ console.log('x'.repeat({length})); cb(); }}")
    assert runtime.records() == [Record(30, "req-1", "x" * length)]


def test_a_record_of_many_bytes_a_character(runtime: Runtime) -> None:
    runtime.call("return cb => { console.log('a' + '\u20ac'.repeat(10000)); cb(); }")
    assert runtime.records() == [Record(30, "req-1", "a" + "\u20ac" * 10000)]


@pytest.mark.parametrize(("length", "cut"), [(65_537, 1), (50_000_000, 49_934_464)])
def test_a_record_beyond_the_bound_is_cut(runtime: Runtime, length: int, cut: int) -> None:
    runtime.call(f"return cb => {{ console.log('x'.repeat({length})); cb(); }}")
    (record,) = runtime.records()
    assert len(record.text) == 65_536
    assert record.text.endswith(f"x [{cut} bytes cut]")


def test_a_frame_byte_by_byte(runtime: Runtime) -> None:
    runtime.call("return cb => { console.warn('h\u00fc'); cb(); }", req_id="ab")
    assert runtime.read_frames() == b"\xf5\x01\x28\x00\x00\x03\x02\x00abh\xc3\xbc"
    assert FRAME.size == 8


def test_raw_output_stays_raw(runtime: Runtime) -> None:
    runtime.call("return cb => { process.stdout.write('out\\n'); process.stderr.write('err\\n'); cb(); }")
    assert runtime.output.read_text() == "out\nerr\n"
    assert runtime.read_frames() == b""


def test_a_full_pipe_drops_counts_and_never_blocks(runtime: Runtime) -> None:
    code = "return cb => { for (let i = 0; i < 20000; i++) console.log('line', i, 'x'.repeat(100)); cb(null, 'done'); }"
    assert runtime.call(code).body == b'"done"'
    assert runtime.call(OK).body == b'"ok"'
    records = runtime.records(lambda found: any(record.notice for record in found))
    notice = next(record for record in records if record.notice)
    assert (notice.level, notice.req_id) == (40, "")
    kept = [int(record.text.split()[1]) for record in records if not record.notice]
    assert kept == list(range(len(kept)))  # in order, whole, from the first one
    assert notice.text.startswith(f"{20000 - len(kept)} log records (")
    assert 64 * 1024 < sum(len(record.text) for record in records) < 400 * 1024
    runtime.call("return cb => { console.log('after'); cb(); }")
    assert runtime.records()[-1].text == "after"


def test_a_flood_over_many_turns_keeps_memory_flat(runtime: Runtime) -> None:
    code = """return cb => { let n = 0; const go = () => {
        for (let i = 0; i < 1000; i++) console.log('y'.repeat(1000));
        if (++n < 50) setImmediate(go); else cb(null, process.memoryUsage.rss()); }; go(); }"""
    assert runtime.call(code).json < 160 * 1024 * 1024


def test_a_reader_that_is_gone_is_ignored(runtime: Runtime) -> None:
    runtime.close_log()
    assert runtime.call("return cb => { console.log('nobody reads'); cb(null, 'ok'); }").body == b'"ok"'
    assert runtime.call("return cb => { throw new Error(); }").status == 500
    assert runtime.call(OK).body == b'"ok"'


def test_without_descriptor_3_all_else_is_the_same(start_runtime: StartRuntime) -> None:
    runtime = start_runtime(frames=False)
    assert runtime.call("return cb => { console.error('unheard'); cb(null, 'ok'); }").body == b'"ok"'
    assert runtime.call("return cb => { process.kill(process.pid, 0); throw new Error(); }").status == 500
    assert runtime.output.read_bytes() == b""


def test_descriptor_3_is_not_inherited_by_children(runtime: Runtime) -> None:
    code = "return cb => require('child_process').execFile('/bin/ls', ['-l', '/proc/self/fd'], cb)"
    assert "log" not in runtime.call(code).json


def test_records_written_right_before_the_end_arrive(runtime: Runtime) -> None:
    runtime.call("return cb => { console.log('x'.repeat(9000)); console.log('last'); process.exit(0); }")
    texts = [record.text for record in runtime.records(lambda found: len(found) == 3)]
    assert texts[1:] == ["last", "process.exit(0) ended the process."]


def test_the_parser_of_these_tests_keeps_a_half_frame() -> None:
    whole = b"\xf5\x01\x1e\x00\x00\x01\x00\x00a"
    assert parse_frames(whole + whole[:5]) == ([Record(30, "", "a")], whole[:5])
