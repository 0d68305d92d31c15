"""The wire between platform and runtime (`docs/runtime.md`), as far as more than one part must know it."""

VERSION = 1
"""What our runtimes speak, proxies read and the controller writes down of each sandbox."""
ANSWER = b"HTTP/1.1 204 No Content\r\nx-sandpost-wire: %d\r\n" % VERSION
"""How the answer to a warm-up call and to a probe begins: compared, never parsed."""
