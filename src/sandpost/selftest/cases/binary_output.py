"""Output that is no text: every byte, broken UTF-8, ends of line that only some readers know, marks that turn text around.

Weaker: it breaks whoever decodes it, forges lines of the log, or acts on the terminal of who reads it.
Must: served; records of plain text alone.
"""

import time
import unicodedata

from sandpost.selftest.case import Attacker, Case, expect

PROGRAM = """
const every = Buffer.from(Array.from({ length: 256 }, (_, n) => n));
const odd = Buffer.from('c0afeda080f09f98e280a8e280aec285efbbbff4908080', 'hex');
for (const out of [process.stdout, process.stderr]) {
  out.write('odd-bytes ');
  out.write(every); out.write(odd); out.write(every.reverse()); out.write('\\n');
  out.write(require('crypto').randomBytes(8192)); out.write('\\n');
}
console.log('odd-bytes', every.toString('latin1'), odd.toString('utf8'), '\\ud800');
await new Promise((done) => setTimeout(done, 300));
return 'done';
"""


def attack(me: Attacker) -> str:
    expect(me.inside(PROGRAM) == "done", "it was not served")
    time.sleep(0.5)
    texts = [one["msg"] for one in me.log()]
    acts = [
        text for text in texts for one in text if one not in "\t\n" and unicodedata.category(one) in {"Cc", "Zl", "Zp"}
    ]
    expect(not acts, f"controls in {acts[:1]!r}")
    expect(any("odd-bytes" in text for text in texts), "no record of it")
    return "plain text"


CASE = Case(part="resources", title="Binary output", attack=attack, log="odd-bytes")
