"""Results that cannot be rendered: cyclic, 100,000 levels deep, with a `toJSON` that throws, loops or gives itself again.

Weaker: the platform's own code renders them, and meets the end of the stack or an exception that is not its own.
Must: 400 that says so for each, within the call; the sandbox lives.
"""

from sandpost.selftest.case import Attacker, Case, answered, typed

FORMS = {
    "cyclic": "const a = []; a.push(a); cb(null, a)",
    "cyclic by toJSON": "const a = { toJSON() { return { a } } }; cb(null, a)",
    "100,000 levels": "let a = []; for (let n = 0; n < 100000; n++) a = [a]; cb(null, a)",
    "a throwing toJSON": "cb(null, { toJSON() { throw new Error('no') } })",
    "a toJSON that throws traps": "cb(null, { toJSON() { throw new Proxy({}, { get() { throw 1 } }) } })",
    "a throwing getter": "cb(null, { get a() { throw null } })",
    "traps": "cb(null, new Proxy({}, { ownKeys() { throw 1 }, get() { throw 2 } }))",
    "a number that JSON has not": "cb(null, { a: 1n })",
}


def attack(me: Attacker) -> str:
    answered(me.call("return function (cb) { globalThis.lives = 1; cb(null, 1) }"), 1)
    for form in FORMS.values():
        typed(me.call(f"return function (cb) {{ {form} }}"), 400, "not_serializable")
    answered(me.call("return function (cb) { cb(null, globalThis.lives) }"), 1)
    return f"{len(FORMS)} forms told"


CASE = Case(part="exchange", title="Results that are none", attack=attack)
