"""The wire between platform and runtime (`docs/runtime.md`), as far as more than one part must know it."""

VERSION = 1
"""What our runtimes speak, proxies read and the controller writes down of each sandbox."""
ANSWER = b"HTTP/1.1 204 No Content\r\nx-sandpost-wire: %d\r\n" % VERSION
"""How the answer to a warm-up call and to a probe begins: compared, never parsed."""
METHODS = frozenset({
    "ACL", "BIND", "CHECKOUT", "COPY", "DELETE", "GET", "HEAD", "LINK", "LOCK", "M-SEARCH", "MERGE",
    "MKACTIVITY", "MKCALENDAR", "MKCOL", "MOVE", "NOTIFY", "OPTIONS", "PATCH", "POST", "PROPFIND",
    "PROPPATCH", "PURGE", "PUT", "QUERY", "REBIND", "REPORT", "SEARCH", "SOURCE", "SUBSCRIBE", "TRACE",
    "UNBIND", "UNLINK", "UNLOCK", "UNSUBSCRIBE",
})  # fmt: skip
"""Methods of calls: those that the image's Node parses (`http.METHODS`), but for CONNECT, which has no path."""
BLOCKED = 86
"""Exit status of a runtime that ends itself for a thread that ran on after its call's deadline."""
