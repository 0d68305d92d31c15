"""What every runtime answers, row by row of docs/runtime.md: one list of programs, each written in every form that runs.

A further language adds its programs to the rows where they make sense, and its content type to `FORMS`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

FORMS: Mapping[str, str] = {
    "javascript": "application/javascript",
    "javascript module": "application/javascript",
    "typescript": "application/typescript",
    "typescript module": "application/typescript",
    "typescript rewritten": "application/typescript",
    "python": "text/x-python",
    "python async": "text/x-python",
    "csharp": "text/x-csharp",
    "csharp class": "text/x-csharp",
}
"""Forms of a program, each with what `load` says of its language."""


@dataclass(frozen=True)
class Row:
    """A program and what comes back. `programs`: its text by form."""

    what: str
    programs: Mapping[str, str]
    status: int = 200
    reason: str = ""
    source: str = "webtask"
    body: bytes | None = None
    """The whole answer."""
    says: Mapping[str, object] = field(default_factory=dict)
    """Fields of a failure."""
    at_load: bool = False
    """Whether it is the load that fails."""
    ends: str = ""
    """The word of the sandbox's end, if the call ends it."""
    logs: tuple[tuple[int, str], ...] = ()
    """Level and text of what it prints."""


def node(function: str, before: str = "") -> dict[str, str]:
    """Return a program of all forms of JavaScript and TypeScript: a function, and what stands before it."""
    typed = "interface Unused { a: number }\n"
    # An enum makes the compiler write the whole program anew.
    rewritten = "enum Unused { A, B }\n"
    return {
        "javascript": f"// A body of a function.\n{before}return {function}",
        "javascript module": f"import 'node:path';\n{before}export default {function}",
        "typescript": f"{typed}{before}return {function}",
        "typescript module": f"{typed}{before}export default {function}",
        "typescript rewritten": f"{rewritten}{before}return {function}",
    }


def python(signature: str, body: str, before: str = "") -> dict[str, str]:
    """Return a program of both forms of Python; `AWAIT ` in its body is for the one that waits."""
    return python_def(signature, body, before) | python_async(signature, body, before)


def python_def(signature: str, body: str, before: str = "") -> dict[str, str]:
    """Return a program of Python that runs in a thread."""
    return {"python": f"{before}def {signature}:\n    {body}".replace("AWAIT ", "")}


def python_async(signature: str, body: str, before: str = "") -> dict[str, str]:
    """Return a program of Python that runs on the loop."""
    return {"python async": f"{before}async def {signature}:\n    {body}".replace("AWAIT ", "await ")}


def csharp(body: str) -> dict[str, str]:
    """Return a program of both forms of C#, whose function has `body`."""
    return {"csharp": f"async (dynamic context) => {{ {body} }}"} | csharp_class(body)


def csharp_class(body: str, before: str = "") -> dict[str, str]:
    """Return a program in C# that is a class."""
    method = f"public async Task<object> Invoke(dynamic context) {{ {body} }}"
    return {
        "csharp class": f"using System; using System.Threading.Tasks; {before} public class Startup {{ {method} }}",
    }


SCRIPT_ERROR = "Script returned an error."
SYNC = "Script generated an unhandled synchronous exception."
ASYNC = "Script generated an unhandled asynchronous exception."
CODE = "Invalid webtask code"
LATER = "import asyncio, threading, time\ndef fail():\n    raise ValueError('late')\n"
NO_FUNCTION = "Supplied code must return or export a function."

ROWS = (
    Row(
        "a value",
        node("function (cb) { cb(null, { a: [1, null] }) }")
        | python("main(context)", "return {'a': [1, None]}")
        | csharp("return new { a = new object[] { 1, null } };"),
        body=b'{"a":[1,null]}',
    ),
    Row(
        "text",
        node("function (cb) { cb(null, 'gr\u00fc\u00df \U0001f600') }")
        | python("main(context)", "return 'gr\u00fc\u00df \U0001f600'")
        | csharp('return "gr\u00fc\u00df \U0001f600";'),
        body='"gr\u00fc\u00df \U0001f600"'.encode(),
    ),
    Row(
        "a falsy value",
        node("function (cb) { cb(null, 0) }") | python("main(context)", "return 0") | csharp("return 0;"),
        body=b"{}",
    ),
    Row(
        "a promise",
        node("async function (context, cb) { await null; return context.data.x }")
        | python_async("main(context)", "await asyncio.sleep(0); return context.data['x']", "import asyncio\n")
        | csharp("await Task.Delay(1); return context.data.x;"),
        body=b'"y"',
    ),
    Row(
        "the query",
        node("function (context, cb) { cb(null, context.query) }")
        | python("main(context)", "return context.query")
        | csharp("return context.query;"),
        body=b'{"x":"y"}',
    ),
    Row(
        "the id of the request",
        node("function (context, cb) { cb(null, context.id) }")
        | python("main(context)", "return context.id")
        | csharp("return context.id;"),
        body=b'"req-1"',
    ),
    Row(
        "an answer of its own",
        node("function (context, req, res) { res.statusCode = 201; res.end(req.url) }")
        | python("main(context, request, response)", "response.status = 201; AWAIT response.write(request.url)"),
        201,
        body=b"/acme?x=y",
    ),
    Row(
        "an error",
        node("function (cb) { cb(new TypeError('no')) }")
        | python_async("main(context)", "raise TypeError('no')")
        | csharp_class(
            'throw new TypeError("no");', "class TypeError : Exception { public TypeError(string m) : base(m) {} }"
        ),
        400,
        "script_error",
        says={"error": SCRIPT_ERROR, "name": "TypeError", "message": "no", "details": "TypeError: no"},
    ),
    Row("an error that is text", node("function (cb) { cb('no') }"), 400, "script_error", says={"details": "no"}),
    Row(
        "an error with a status",
        node("function (cb) { cb(Object.assign(new Error('gone'), { statusCode: 410 })) }")
        | python("main(context)", "raise Gone('gone')", "class Gone(Exception):\n    status_code = 410\n")
        | csharp_class(
            "throw new Gone();",
            'class Gone : Exception { public int StatusCode = 410; public Gone() : base("gone") {} }',
        ),
        410,
        "script_error",
        says={"message": "gone"},
    ),
    Row(
        "a promise that is rejected",
        node("async function (context, cb) { throw new Error('r') }")
        | python_async("main(context)", "raise ValueError('r')")
        | csharp('throw new Exception("r");'),
        400,
        "script_error",
        says={"error": SCRIPT_ERROR, "message": "r"},
    ),
    Row(
        "thrown at once",
        node("function (cb) { throw new RangeError('t') }")
        | python_def("main(context)", "raise RangeError('t')", "class RangeError(Exception): pass\n"),
        500,
        "sync_exception",
        says={"error": SYNC, "name": "RangeError", "message": "t"},
    ),
    Row(
        "thrown later",
        node("function (cb) { setTimeout(() => { throw new Error('late') }, 1) }")
        | python_def("main(context)", "threading.Thread(target=fail).start(); time.sleep(5)", LATER)
        | python_async("main(context)", "asyncio.get_running_loop().call_soon(fail); await asyncio.sleep(5)", LATER),
        500,
        "async_exception",
        says={"error": ASYNC, "message": "late"},
    ),
    Row(
        "a rejection that nobody waits for",
        node("function (cb) { Promise.reject(new Error('alone')) }")
        | python_async(
            "main(context)",
            "asyncio.create_task(fail()); await asyncio.sleep(5)",
            "import asyncio\nasync def fail():\n    raise ValueError('alone')\n",
        ),
        500,
        "async_exception",
        says={"error": ASYNC, "message": "alone"},
    ),
    Row(
        "does not compile",
        node("function (cb) {\n\n  foo bar\n}")
        | python("main(context)", "\n  foo bar")
        | csharp("\n      nope(); return 1;"),
        400,
        "compilation_failed",
        "compiler",
        says={"column": 7},
        at_load=True,
    ),
    Row(
        "fails at load",
        node("function (cb) { cb() }", "\n  throw new Error('top');\n")
        | python("main(context)", "return 1", "class Error(Exception): pass\n\nraise Error('top')\n")
        | {
            "csharp class": "using System; class Error : Exception {} public class Startup {\n public Startup() {\n"
            " throw new Error(); } public async System.Threading.Tasks.Task<object> Invoke(object context) { return 1; } }"
        },
        400,
        "compilation_failed",
        "compiler",
        says={"line": 3, "name": "Error"},
    ),
    Row(
        "a module that is not installed",
        node("function (cb) { cb() }", "\n  require('nothing-here');\n")
        | {
            form: f"{before}\n  import x from 'nothing-here';\nexport default function (cb) {{ cb(null, x) }}"
            for form, before in {
                "javascript module": "",
                "typescript module": "interface Unused { a: number }",
                "typescript rewritten": "enum Unused { A, B }",
            }.items()
        }
        | python("main(context)", "return 1", "\nimport nothing_here\n"),
        400,
        "compilation_failed",
        "compiler",
    ),
    Row(
        "no function",
        node("5") | {"python": "main = 5"},
        400,
        "no_function",
        "compiler",
        says={"message": CODE, "error": NO_FUNCTION},
    ),
    Row(
        "no parameter",
        node("function () { return 1 }") | python("main()", "return 1"),
        400,
        "wrong_signature",
        "compiler",
        says={"message": CODE},
    ),
    Row(
        "four parameters",
        node("function (a, b, c, d) {}") | python("main(a, b, c, d)", "return 1"),
        400,
        "wrong_signature",
        "compiler",
        says={"message": CODE},
    ),
    Row(
        "not serialisable",
        node("function (cb) { const a = {}; a.a = a; cb(null, a) }")
        | python("main(context)", "a = {}; a['a'] = a; return a")
        | csharp('var a = new System.Collections.Generic.Dictionary<string, object>(); a["a"] = a; return a;'),
        400,
        "not_serializable",
    ),
    Row(
        "an exit",
        node("function (cb) { process.exit(3) }") | python("main(context)", "sys.exit(3)", "import sys\n"),
        500,
        "exit",
        ends="exit",
    ),
    Row(
        "a crash",
        node("function (cb) { process.abort() }")
        | python("main(context)", "os.abort()", "import os\n")
        | csharp(
            'new System.Threading.Thread(() => { throw new Exception("a"); }).Start(); await Task.Delay(5000); return 1;'
        ),
        500,
        "crash",
        ends="crash",
    ),
    Row(
        "what it prints",
        node("function (cb) { console.log('a', 1); console.warn('b'); console.error('c'); console.debug('d'); cb() }")
        | python(
            "main(context)",
            "print('a', 1); log.warning('b'); log.error('c'); log.debug('d')",
            "import logging\nlogging.basicConfig(format='%(message)s')\n"
            "log = logging.getLogger('mine')\nlog.setLevel(logging.DEBUG)\n",
        ),
        body=b"{}",
        logs=((30, "a 1"), (40, "b"), (50, "c"), (20, "d")),
    ),
    Row(
        "what it prints at the levels that all have",
        node("function (cb) { console.log('a', 1); console.error('b'); cb() }")
        | python("main(context)", "print('a 1'); print('b', file=sys.stderr)", "import sys\n")
        | csharp('Console.WriteLine("a {0}", 1); Console.Error.WriteLine("b"); return null;'),
        body=b"{}",
        logs=((30, "a 1"), (50, "b")),
    ),
)
