"""The user on the host that a sandbox's processes are: is it root, or somebody else's too?

Weaker: all containers are one user of the host, and every limit that counts by user, every signal and every file that is
left is shared.
Must: one that no other sandbox is, and not root.
"""

from sandpost.selftest.case import Attacker, Case, expect


def attack(me: Attacker) -> str:
    host = me.host()
    users, others = host.users(me.sandbox())
    expect(users and 0 not in users, f"its processes are users {sorted(users)} of the host")
    expect(not others, f"the same user: {others[:5]}")
    return "one of its own"


CASE = Case(part="escape", title="The user on the host", attack=attack)
