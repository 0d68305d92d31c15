"""Threads without end, from Python.

Weaker: a limit of processes that does not count threads.
Must: refused at `limits.pids`, and the sandbox serves on.
"""

from sandpost.selftest.case import Attacker, Case, expect

BODY = """
import threading, time
done, alive, error = threading.Event(), [], "none"
for _ in range(200):
    thread = threading.Thread(target=done.wait, args=(30,))
    try:
        thread.start()
    except RuntimeError as refused:
        error = str(refused)
        break
    alive.append(thread)
time.sleep(1.5)
done.set()
for thread in alive:
    thread.join()
return [error, len(alive)]
"""


def attack(me: Attacker) -> str:
    error, count = me.inside(BODY)
    expect(error == "can't start new thread" and count <= 64, f"{error} after {count} threads")
    return f"refused after {count} threads"


CASE = Case(
    part="resources",
    title="Python: thread bomb",
    attack=attack,
    limits={"deadline": "10s"},
    logged_on={"runc"},
    log="pids:",
    language="python",
    quick=False,
)
