"""One run of the virtual machine under QEMU."""

import os
import re
import subprocess
import threading
from collections.abc import Callable

from vm.disks import Run, System

MEMORY_MIB = 4096
_ENDED = re.compile(r"sandpost-vm: ended with (\d+)")
_HUNG = "Kernel panic - not syncing: softlockup"
_KERNEL = (
    *("root=/dev/vda", "rw", "console=ttyS0", "quiet"),
    # A processor of the guest that its kernel never gives back ends the machine after 2 minutes, by a panic.
    *("watchdog_thresh=60", "softlockup_panic=1", "panic=-1"),
)


class KernelHung(Exception):
    """The guest's kernel hung, as was seen with QEMU 7.2: it says nothing of the tests."""


def boot(system: System, run: Run, say: Callable[[str], None], deadline: float) -> int | None:
    """Boot, hand on the lines that the guest reports, and return the status that it ended with; None without one.

    The machine ends within `deadline` seconds, and with this process however that one ends. Raises `KernelHung`.
    """
    console = run.folder / "console.log"
    disks = (system.disk, run.disk, run.swap)
    command = [
        *("setpriv", "--pdeathsig=KILL"),
        # Software emulation: many machines that run this are virtual ones themselves and boot no guests by KVM.
        # Page tables of four levels, as nearly all hosts have: a level less for the emulator to walk.
        *("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max,la57=off"),
        *("-smp", str(min(os.cpu_count() or 1, 4)), "-m", str(MEMORY_MIB)),
        *("-nodefaults", "-display", "none", "-no-reboot", "-nic", "none"),
        *("-kernel", str(system.kernel), "-initrd", str(system.initrd)),
        *("-append", " ".join(_KERNEL)),
        # What is written goes to a file without a name.
        *(part for disk in disks for part in ("-drive", f"file={disk},format=raw,if=virtio,snapshot=on")),
        *("-serial", f"file:{console}", "-chardev", "stdio,id=report,signal=off", "-serial", "chardev:report"),
    ]
    ended = None
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "TMPDIR": str(run.folder)},
    ) as qemu:
        watchdog = threading.Timer(deadline, qemu.kill)
        watchdog.start()
        try:
            assert qemu.stdout is not None
            for line in qemu.stdout:
                say(line.rstrip())
                if found := _ENDED.match(line):
                    ended = int(found[1])
        finally:
            watchdog.cancel()
            qemu.kill()
    if ended is None and console.exists():
        told = console.read_text(errors="replace")
        for line in told.splitlines()[-40:]:
            say(f"console: {line}")
        if _HUNG in told:
            raise KernelHung
    return ended
