"""Prototypes that everybody uses, changed for all.

Weaker: the runtime's own code, or another program in the process, works with what it finds there.
Must: the answer is right, and the tenant's other programs are served.
"""

from sandpost.selftest.case import Attacker, Case, answered

PROGRAM = "return function (cb) { Object.prototype.statusCode = 418; Object.prototype.then = () => {}; Array.prototype.map = Array.prototype.join = () => 'x'; JSON.stringify = () => 'x'; String.prototype.slice = () => ''; cb(null, 'right') }"


def attack(me: Attacker) -> str:
    return answered(me.call(PROGRAM), "right")


CASE = Case(part="exchange", title="Prototype pollution", attack=attack)
