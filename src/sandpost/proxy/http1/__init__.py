"""HTTP/1.1 as pure code: bytes in, values out and back. No clock, no sockets, nothing that waits."""
