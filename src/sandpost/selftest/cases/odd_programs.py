"""Programs that are none: nothing, blanks, zeros, half a program, UTF-16, a byte order mark, broken UTF-8, ten megabytes.

Weaker: a compiler's error is the platform's own; text whose encoding is guessed means something else than was written.
Must: each is told what is wrong with it, and none runs.
"""

from sandpost.selftest.case import Attacker, Case, expect

PROGRAM = "return function (cb) { cb(null, 'ran') }"
FORMS = {
    "nothing": b"",
    "blanks": b" \r\n\t ",
    "zeros": bytes(64),
    "half a program": b"return function (cb) { cb(null, 'ran'",
    "what closes our own": b"}); process.exit(); ({",
    "a byte order mark": PROGRAM.encode("utf-8-sig"),
    "UTF-16": PROGRAM.encode("utf-16"),
    "UTF-16, the other end first": PROGRAM.encode("utf-16-be"),
    "broken UTF-8": b"return function (cb) { cb(null, '\xff\xfe') } \xc3",
    "no function": b"return 1",
    "no JavaScript": b"#!/bin/sh\nexit 1\n",
}
_LARGE = b" " * (10 << 20) + PROGRAM.encode()


def attack(me: Attacker) -> str:
    for form, text in FORMS.items():
        answer = me.call(text)
        expect(answer.status in {400, 415} and answer.reason, f"{form}: {answer.status} {answer.body!r}")
    large = me.send(b"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(_LARGE), _LARGE))
    expect(large.startswith(b"HTTP/1.1 413 ") and b"limits.code" in large, large[:300])
    return f"{len(FORMS) + 1} forms told"


CASE = Case(part="exchange", title="Programs that are none", attack=attack, limits={"code": "1MiB"})
