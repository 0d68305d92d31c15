"""What a program in Python finds around it: environment, descriptors, other processes, the host's files.

Weaker: the interpreter inherits what its maker had open, or what stood in its environment.
Must: nothing of the platform's; no process but its own; no capability, and no user 0.
"""

from sandpost.selftest.case import Attacker, Case, expect

BODY = """
import ctypes, os, socket
status = {name: value.strip() for name, _, value in (line.partition(":") for line in open("/proc/self/status"))}
kinds = []
for name in os.listdir("/proc/self/fd"):
    try:
        kinds.append(os.readlink("/proc/self/fd/" + name).split(":")[0])
    except OSError:
        pass
readable = []
for path in ("/etc/shadow", "/run/sandpost", "/var/lib/sandpost", "/proc/kcore", "/proc/1/root/etc/shadow", "/dev/mem"):
    try:
        os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(1)
        readable.append(path)
    except OSError:
        pass
try:
    os.setuid(0)
    readable.append("setuid(0)")
except OSError:
    pass
return {
    "environment": sorted(os.environ), "first": open("/proc/1/environ").read(), "opened": sorted(set(kinds)),
    "readable": readable, "caps": [status[one] for one in ("CapPrm", "CapEff", "CapBnd", "CapAmb")],
    "uid": status["Uid"].split(), "new": status["NoNewPrivs"], "host": socket.gethostname(),
    "processes": [open(f"/proc/{one}/comm").read().strip() for one in os.listdir("/proc") if one.isdigit()],
}
"""
_OPEN = ("/dev/null", "pipe", "socket", "anon_inode", "/proc", "host", "unknown")
"""What its runtime has open, besides the FIFOs that it writes to."""


def attack(me: Attacker) -> str:
    found = me.inside(BODY)
    words = f"{found['environment']} {found['first']}".lower()
    expect(not any(word in words for word in ("key", "secret", "token", "password")), words)
    expect(not found["readable"], f"opened {found['readable']}")
    expect(set(found["caps"]) == {"0" * 16} and found["new"] == "1" and "0" not in found["uid"], found)
    expect(len(found["processes"]) <= 3, found["processes"])
    strange = [one for one in found["opened"] if not one.startswith(_OPEN) and "/fifos/" not in one]
    expect(not strange, f"has open {strange}")
    return f"{len(found['processes'])} processes, its own"


CASE = Case(part="escape", title="Python: what is around", attack=attack, language="python")
