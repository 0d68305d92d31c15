"""The store of npm and PyPI packages on a host: what a builder sends is judged, unpacked, and appears by one rename."""
