"""A small client of one installation: by its socket as root, or by URL and key. Synchronous."""

import contextlib
import ssl
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from sandpost.api.views import (
    Keys,
    KeyView,
    MadeKey,
    Modules,
    ModuleView,
    Problem,
    SandboxesView,
    SandboxView,
    StatusView,
    TenantPut,
    Tenants,
    TenantView,
    UsageView,
)
from sandpost.client.errors import Refused, Unreachable
from sandpost.client.following import SILENCE, Following
from sandpost.model.errors import ConfigError, InvalidName, shown
from sandpost.model.names import tenant_name
from sandpost.model.specs import parse_spec, unknown

TIMEOUT = 15.0
"""Seconds for an answer of a management route."""
T = TypeVar("T", bound=msgspec.Struct)


class Client:
    """Management routes of one installation. Raises `Unreachable` and `Refused`, and `InvalidName` before it asks.

    Close it, or use `with`.

    `socket` is the api's unix socket, where root needs no key; else `url` and `key` say where and as whom.
    `certificate` is trusted besides the machine's own, whatever name it carries (a self-signed one, for example);
    the file `authorities` holds further certificates that are trusted for the names that they carry or vouch for.
    """

    def __init__(
        self, *, url: str = "", socket: str = "", key: str | None = None, certificate: str = "", authorities: str = ""
    ) -> None:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        self._where = socket or url
        if socket:
            transport = httpx.HTTPTransport(uds=socket, verify=False)
            self._http = httpx.Client(transport=transport, base_url="http://api", headers=headers, timeout=TIMEOUT)
        else:
            self._http = httpx.Client(
                base_url=url,
                headers=headers,
                timeout=TIMEOUT,
                verify=trust(url, certificate, authorities),
                trust_env=False,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def status(self) -> StatusView:
        """Return how the installation is."""
        return self._get("/api/status", StatusView)

    def tenants(self) -> Iterator[TenantView]:
        """Yield the registered tenants by name, page after page."""
        after: str | None = ""
        while after is not None:
            page = self._get("/api/tenants", Tenants, {"after": after})
            yield from page.tenants
            after = page.next

    def tenant(self, name: str) -> TenantView:
        """Return one registered tenant."""
        return self._get(_tenant_path(name), TenantView)

    def put_tenant(self, name: str, change: Mapping[str, Any]) -> tuple[TenantPut, bool]:
        """Set what `change` names (`state`, `isolation`, `egress`, `limits`); return the tenant, and if it is new."""
        response = self._send("PUT", _tenant_path(name), change)
        return _decode(response, TenantPut), response.status_code == 201

    def remove_tenant(self, name: str) -> None:
        """Remove a tenant with its keys, sandboxes and usage."""
        self._send("DELETE", _tenant_path(name))

    def keys(self, tenant: str | None = None) -> Iterator[KeyView]:
        """Yield all keys, or a tenant's, page after page."""
        after: str | None = ""
        while after is not None:
            page = self._get(_keys_path(tenant), Keys, {"after": after})
            yield from page.keys
            after = page.next

    def make_key(self, tenant: str | None, label: str = "") -> MadeKey:
        """Make a key of a tenant, or of the operator."""
        return _decode(self._send("POST", _keys_path(tenant), {"label": label}), MadeKey)

    def revoke_key(self, key_id: str) -> None:
        """Revoke a key."""
        if not key_id.isalnum():
            raise InvalidName(f"`{shown(key_id)}` is no key's id: `sandpost key ls` lists them")
        self._send("DELETE", f"/api/keys/{quote(key_id, safe='')}")

    def usage(self, tenant: str, since: str) -> UsageView:
        """Return a tenant's usage by hour."""
        return self._get(f"{_tenant_path(tenant)}/usage", UsageView, {"since": since})

    def sandboxes(self, tenant: str | None = None) -> list[SandboxView]:
        """Return all sandboxes, or a tenant's."""
        path = "/api/sandboxes" if tenant is None else f"{_tenant_path(tenant)}/sandboxes"
        return self._get(path, SandboxesView).sandboxes

    def modules(self) -> Iterator[ModuleView]:
        """Yield the modules that there are, and those that were asked for, page after page."""
        after: str | None = ""
        while after is not None:
            page = self._get("/api/modules", Modules, {"after": after})
            yield from page.modules
            after = page.next

    def module(self, spec: str) -> ModuleView:
        """Return one module with the hashes of all that is in it; `NotFound` if there is none of that spec."""
        wanted = parse_spec(spec)
        found = self._get("/api/modules", Modules, {"spec": str(wanted)}).modules
        if not found:
            raise unknown(wanted)
        return found[0]

    def add_modules(self, specs: Sequence[str], *, scripts: bool = False) -> list[ModuleView]:
        """Ask for modules, 100 at most; return how they stand now."""
        body = {"modules": [str(parse_spec(spec)) for spec in specs], "scripts": scripts}
        return _decode(self._send("POST", "/api/modules", body), Modules).modules

    def remove_module(self, spec: str) -> None:
        """Remove a module, whatever its state."""
        self._send("DELETE", f"/api/modules?spec={quote(str(parse_spec(spec)), safe='')}")

    def collect_modules(self, *, keep: int | None, older_than: str | None) -> list[ModuleView]:
        """Remove what failed, and versions beyond the newest `keep` that are older than that; return what it was."""
        body = {"keep": keep, "older_than": older_than}
        return _decode(self._send("POST", "/api/modules/gc", body), Modules).modules

    @contextlib.contextmanager
    def run(self, tenant: str, program: bytes, data: Mapping[str, str], content_type: str) -> Iterator[httpx.Response]:
        """Run `program` for `tenant`; the answer's body is not read yet. Takes as long as the program may.

        Without a `content_type` the program's own first line says its language.

        Only by URL: programs are taken by the proxies. What the program answers is an answer whatever its status;
        the platform's own errors are raised as `Refused`.
        """
        request = self._http.build_request(
            "POST",
            f"/{quote(tenant_name(tenant), safe='')}",
            params=dict(data),
            content=program,
            headers={"content-type": content_type} if content_type else {},
            timeout=httpx.Timeout(TIMEOUT, read=None),
        )
        with self._streamed(request, "answer") as response:
            if response.status_code >= 400:
                self._judge(response)
            yield response

    def logs(self, tenant: str | None, parameters: Mapping[str, str]) -> "Following":
        """Return the records of a tenant (None: of the platform itself) that `parameters` of docs/logs.md ask for.

        It connects again by itself, without gap or double; see `Following`.
        """
        path = "/logs/system" if tenant is None else f"/logs/tenant/{quote(tenant_name(tenant), safe='')}"
        return Following(lambda query: self._events(path, query), parameters)

    @contextlib.contextmanager
    def _events(self, path: str, query: Mapping[str, str]) -> Iterator[httpx.Response]:
        request = self._http.build_request(
            "GET",
            path,
            params=query,
            headers={"accept": "text/event-stream"},
            timeout=httpx.Timeout(TIMEOUT, read=SILENCE),
        )
        with self._streamed(request, "stream") as response:
            if not response.is_success:
                response.read()
                self._check(response)
            yield response

    @contextlib.contextmanager
    def _streamed(self, request: httpx.Request, what: str) -> Iterator[httpx.Response]:
        """Send a request; its answer's body (`what`) is not read yet, and is let go at the end."""
        response = self._try(request, stream=True)
        try:
            yield response
        except httpx.TransportError as error:
            raise Unreachable(f"{self._where} broke the {what} off: {error}") from error
        finally:
            response.close()

    def _get(self, path: str, kind: type[T], query: Mapping[str, str] | None = None) -> T:
        return _decode(self._check(self._try(self._http.build_request("GET", path, params=query))), kind)

    def _send(self, method: str, path: str, body: Any = None) -> httpx.Response:
        content = None if body is None else msgspec.json.encode(body)
        return self._check(self._try(self._http.build_request(method, path, content=content)))

    def _try(self, request: httpx.Request, *, stream: bool = False) -> httpx.Response:
        try:
            return self._http.send(request, stream=stream)
        except httpx.TimeoutException as error:
            raise Unreachable(f"{self._where} did not answer within {TIMEOUT:g} s: try again") from error
        except httpx.LocalProtocolError:
            # Its text shows the headers, the key among them.
            raise Unreachable("the request cannot be sent: the key holds what no header may hold") from None
        except (httpx.TransportError, httpx.InvalidURL) as error:
            if doubt := _distrust(error):
                raise Unreachable(
                    f"{self._where} shows a certificate that is not trusted here ({doubt}): --cacert FILE names one to "
                    "trust, --url the name that it carries; root on its host needs neither"
                ) from error
            raise Unreachable(f"{self._where} cannot be reached ({error})") from error

    def _judge(self, response: httpx.Response) -> None:
        """Raise if an answer with an error's status is not the program's; one that is may be endless."""
        source = response.headers.get("x-wt-response-source")
        if source is None:
            raise self._strange(response)
        if source == "proxy" and (problem := problem_of(response.status_code, response.read())) is not None:
            raise Refused(problem)

    def _strange(self, response: httpx.Response) -> Unreachable:
        return Unreachable(f"{self._where} answered {response.status_code}, but not as Sandpost does: check the URL")

    def _check(self, response: httpx.Response) -> httpx.Response:
        if response.is_success:
            return response
        problem = problem_of(response.status_code, response.content)
        if problem is None:
            raise self._strange(response)
        raise Refused(problem)


def problem_of(status: int, body: bytes) -> Problem | None:
    """Return the platform's error in an answer; None if it is none of the platform's."""
    if status < 400:
        return None
    try:
        return msgspec.json.decode(body, type=Problem)
    except msgspec.DecodeError:
        return None


def _decode(response: httpx.Response, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(response.content, type=kind)
    except msgspec.DecodeError as error:
        raise Unreachable(f"the answer is not one of this release's api ({error}): update this client") from error


def _tenant_path(tenant: str) -> str:
    # Anything else in a path would name another tenant, or another route.
    return f"/api/tenants/{quote(tenant_name(tenant), safe='')}"


def _keys_path(tenant: str | None) -> str:
    return "/api/keys" if tenant is None else f"{_tenant_path(tenant)}/keys"


def _distrust(error: BaseException | None) -> str:
    """Return why a certificate was not believed; empty if something else went wrong."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return str(error.verify_message)
        # The layers below cut the chain of causes; the contexts stay.
        error = error.__context__
    return ""


def trust(url: str, certificate: str, authorities: str) -> ssl.SSLContext | bool:
    """Return whose certificates are believed at `url`; False without TLS. Arguments as of `Client`; `ConfigError`."""
    if not url.startswith("https"):
        # Building the machine's list of authorities takes longer than the request.
        return False
    context = ssl.create_default_context()
    if authorities:
        try:
            context.load_verify_locations(authorities)
        except OSError as error:
            raise ConfigError(
                f"{authorities} holds no certificates that can be read ({error}): write them in PEM"
            ) from None
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if certificate:
        context.load_verify_locations(certificate)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.check_hostname = False
    return context
