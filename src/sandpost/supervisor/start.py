"""The start of an installation, up to the moment where its parts are started."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from sandpost import config
from sandpost.config import Settings, claims, machine, names, preflight
from sandpost.config import host as host_file
from sandpost.image import use
from sandpost.kernel import calls
from sandpost.logs.setup import get_logger
from sandpost.model.engines import HOW_TO_GET
from sandpost.model.errors import ConfigError, HostUnfit
from sandpost.model.host import Host, load
from sandpost.supervisor import certificate, credentials, family, layout, listening, spawn
from sandpost.supervisor.aside import Aside
from sandpost.supervisor.wish import WISH, Stopped

log = get_logger()


@dataclass(slots=True)
class Prepared:
    """An installation whose parts can be started."""

    settings: Settings
    host: Host
    host_file: str
    previous: list[family.Known]
    first_key: str | None
    curl: tuple[str, str]
    """Options of `curl`, and the listener's name in a URL, with which this machine reaches it."""
    lock: int
    image: int | None
    """Keeps the image from being removed, also while there is no controller; None for a stop that came before it."""
    cgroups: int
    reread: Callable[[Host], Host]


def prepare(settings: Settings, load_again: Callable[[], Settings], say: Callable[[str], None]) -> Prepared:
    """Look at the machine, lock the state folder, claim a place, make folders, image, first key and host file.

    What it made for a start that fails is given back. Raises `SandpostError` with what to do.
    """
    seen = machine.read(settings)
    findings = preflight.judge(seen)
    preflight.require(findings)
    lock = layout.lock_state(settings["state_dir"])
    for finding in findings:
        if finding.level == "warn":
            say(f"note: {finding.message}")
    try:
        return _claimed(settings, load_again, say, seen, lock)
    except BaseException:
        os.close(lock)
        raise


def release(prepared: Prepared) -> None:
    """Give the place on the machine back. Nothing of the installation runs any more."""
    run_root = prepared.settings["run_dir"]
    claims.release(run_root, prepared.host.instance, prepared.host.state_dir, layout.remove_run_dir)
    os.close(prepared.lock)


def greeting(prepared: Prepared, began: float) -> str:
    """Return what the operator reads when all is ready."""
    host = prepared.host
    scheme = "https" if host.tls_cert else "http"
    options, name = prepared.curl
    url = f"{scheme}://{_address(host)}:{host.listen_port}"
    took = time.monotonic() - began
    how = f"adopted {len(prepared.previous)} running processes" if prepared.previous else "started"
    lines = [f"Sandpost is ready at {url} ({how} in {took:.1f} s; state in {host.state_dir})"]
    key = prepared.first_key or "YOUR_KEY"
    if prepared.first_key:
        lines.append("The first operator's key is in this line, and shown this once:")
    else:
        lines.append("`sandpost key create` makes a key. Try:")
    program = """return function (cb) { cb(null, "Hello, world!") }"""
    command = f"curl {options} -d" if options else "curl -d"
    lines += ["", f"""    {command} '{program}' "{scheme}://{name}:{host.listen_port}/acme?key={key}\"""", ""]
    return "\n".join(lines)


def _claimed(
    settings: Settings,
    load_again: Callable[[], Settings],
    say: Callable[[str], None],
    seen: preflight.Machine,
    lock: int,
) -> Prepared:
    # The longest step first; it runs beside the others.
    image = Aside(lambda: _ensure_image(settings, say), close=(lock,))
    try:
        return _placed(settings, load_again, seen, lock, image)
    finally:
        image.end()


def _placed(
    settings: Settings, load_again: Callable[[], Settings], seen: preflight.Machine, lock: int, image: Aside
) -> Prepared:
    run_root, state_dir = settings["run_dir"], settings["state_dir"]
    instance = claims.claim(
        run_root, state_dir, settings["instance"], lambda k: _in_use(run_root, k), layout.make_run_dir
    )
    run_dir = claims.folder(run_root, instance)
    previous = family.living(os.path.join(run_dir, "children.json"))
    cgroups = preflight.cgroup_version(seen)

    def make(now: Settings, digest: str, runsc: str) -> Host:
        runtime = machine.oci_runtime(now["oci.runtime"]) or seen.runtime
        cores = os.cpu_count() or 1
        made = host_file.make(
            now,
            instance=instance,
            image=digest,
            runtime_command=runtime,
            runsc_command=runsc,
            cgroups=cgroups,
            cores=cores,
            names=names.read(),
        )
        if not made.metrics_listen:
            return made
        return msgspec.structs.replace(made, metrics_listen=listening.numeric(made.metrics_listen))

    try:
        host = make(settings, "", seen.runsc if preflight.is_good_runsc(seen.runsc_version) else "")
        if previous:
            host = _keep(host)
        else:
            listening.check_port(host)
        layout.make_folders(host)
        try:
            host = _with_files(host, settings, runs=bool(previous))
        except ConfigError as error:
            if not previous:
                raise
            log.warning("the former certificates stay in force", error=error.message)
        digest = _digest(image, previous)
        held = None
        if digest is not None:
            held = use.keep(host.image_dir, digest)
            host = msgspec.structs.replace(host, image=digest)
        curl = _curl(host, settings)
        # Last of what can fail: a key that was made is shown once.
        first_key = Aside(
            lambda: _ensure_key(host, settings["admin_key"] or None, runs=bool(previous)), close=(lock,)
        ).result()
        path = host_file.write(host)
    except BaseException:
        if not previous and not _has_records(run_dir):
            claims.release(run_root, instance, state_dir, layout.remove_run_dir)
        raise

    known = settings

    def reread(old: Host) -> Host:
        nonlocal known
        fresh = load_again()
        if frozen := config.frozen_differences(known, fresh):
            log.warning("settings that only a stop and a start take up", settings=frozen)
        host = _with_files(host_file.take_up(old, make(fresh, old.image, machine.read_runsc(fresh))), fresh, runs=True)
        host_file.write(host)
        known = fresh
        return host

    return Prepared(
        settings=settings,
        host=host,
        host_file=path,
        previous=previous,
        first_key=first_key,
        curl=curl,
        lock=lock,
        image=held,
        cgroups=cgroups,
        reread=reread,
    )


def _keep(new: Host) -> Host:
    """Return the host that living children know, with what they can take up of new settings."""
    try:
        old = load(new.path("host.json"))
    except (OSError, msgspec.DecodeError) as error:
        # A release that wrote it differently: its processes are renewed after adoption.
        log.warning("the host file of the living processes cannot be read: taking the settings of now", err=error)
        return new
    if (old.listen_host, old.listen_port, old.workers) != (new.listen_host, new.listen_port, new.workers):
        log.warning("processes of an earlier start live: `listen` and `workers` change at a stop and a start")
    return host_file.take_up(old, new)


def _digest(image: Aside, previous: list[family.Known]) -> str | None:
    """Wait for the image, up to minutes where it has to be built; a stop of living processes does not need it."""
    try:
        with WISH.breaking_off():
            return image.result()
    except Stopped:
        if not previous:
            raise
        return None


def _with_files(host: Host, settings: Settings, *, runs: bool) -> Host:
    """Return `host` with its parts' copies of the operator's files, made anew; `runs`: workers serve already.

    All or none: all are judged before one is copied. Raises `ConfigError` with what to do.
    """
    copy = credentials.judged(host, settings)
    host = _with_tls(host, settings, runs=runs)
    copy()
    return host


def _with_tls(host: Host, settings: Settings, *, runs: bool) -> Host:
    cert, key = settings["listen.tls_cert"], settings["listen.tls_key"]
    if runs and bool(cert) != bool(host.tls_cert):
        # Else workers with and without TLS would share one address.
        log.warning("TLS is switched on and off by a stop and a start alone", on=bool(host.tls_cert))
        return host
    if not cert:
        return host
    certificate.copy(host, cert, key)
    tls_cert, tls_key = certificate.paths(host)
    return msgspec.structs.replace(host, tls_cert=tls_cert, tls_key=tls_key)


def _address(host: Host) -> str:
    """Return the address at which this machine reaches the listener, as it stands in a URL."""
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host.listen_host, host.listen_host)
    return f"[{address}]" if ":" in address else address


def _curl(host: Host, settings: Settings) -> tuple[str, str]:
    if not host.tls_cert:
        return "", _address(host)
    return certificate.curl(host, settings["listen.tls_cert"] or host.tls_cert, _address(host))


def _ensure_image(settings: Settings, say: Callable[[str], None]) -> str:
    from sandpost.image.build import ensure  # noqa: PLC0415  (in a fork, which ends with what it imported)

    # What a build mounts goes with its last process, however that ends.
    calls.own_mounts()
    return ensure(settings["image_dir"], say, coreclr=settings["image.coreclr"])


def _ensure_key(host: Host, admin_key: str | None, *, runs: bool) -> str | None:
    from sandpost.store import engines_in_use, first_key  # noqa: PLC0415  (in a fork, which ends with what it imported)

    # As the api, whose file it is: who has taken that part over could have written anything for root to read.
    spawn.leave_root(*spawn.user_of("api", host), spawn.reach_of("api", host))
    for engine, tenant in sorted(engines_in_use(host).items()):
        if not host.command(engine) and not runs:
            raise HostUnfit(
                f"tenant `{tenant}` is set to the engine {engine}, and there is none here that works:"
                f" {HOW_TO_GET[engine]}"
            )
    return first_key(host, admin_key)


def _in_use(run_root: str, k: int) -> bool:
    return machine.place_in_use(k) or bool(family.living(os.path.join(claims.folder(run_root, k), "children.json")))


def _has_records(run_dir: str) -> bool:
    records = os.path.join(run_dir, "records")
    return os.path.isdir(records) and bool(os.listdir(records))
