"""Open files without end.

Weaker: the host's table of open files is everybody's.
Must: `EMFILE` inside, the sandbox serves on, and the log says that the limit was met.
"""

from sandpost.selftest.case import Attacker, Case, expect

PROGRAM = """
const fs = require('fs');
const open = [];
try { for (;;) open.push(fs.openSync('/dev/null')) }
catch (error) { await new Promise((done) => setTimeout(done, 1500)); return [error.code, open.length] }
finally { for (const fd of open) fs.closeSync(fd) }
"""


CHILD = """
const child = require('child_process').spawn(process.execPath, ['-e', `%s`], { stdio: 'ignore' });
return await new Promise((done) => { child.on('error', (error) => done(error.code)); child.on('exit', (code, signal) => done(signal ?? code)) });
"""
_IN_CHILD = "const fs = require('fs'); try { for (;;) fs.openSync('/dev/null') } catch (error) { setTimeout(() => process.exit(error.code === 'EMFILE' ? 7 : 1), 2500) }"
_REFUSED = 7


def attack(me: Attacker) -> str:
    # A child's first, so that what the log says then is of it; it tells of the runtime and of its first children.
    refused = me.inside(CHILD % _IN_CHILD)
    expect(refused == _REFUSED, f"a child ended with {refused}")
    unseen = me.told("files:") if me.engine == "runc" else ""
    code, count = me.inside(PROGRAM)
    expect(code == "EMFILE" and count <= 256, f"{code} after {count} files")
    return f"EMFILE after {count}, and in a child{unseen}"


CASE = Case(
    part="resources",
    title="Descriptors without end",
    attack=attack,
    limits={"files": 256, "deadline": "15s", "blocked_after": "10s"},
    quick=False,
    logged_on={"runc"},
    log="files:",
)
