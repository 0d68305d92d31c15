"""The instance's one nftables table: what a sandbox reaches, and who reaches it.

`render` says its rules, `elements` what stands in its sets for each sandbox, `writer` puts that there, `readback`
compares what the kernel has with what it should have; `nft` runs the program that loads and lists rules.
"""

from sandpost.network.firewall.elements import Way
from sandpost.network.firewall.nft import ensure, install, remove
from sandpost.network.firewall.writer import Hit, Writer

__all__ = ["Hit", "Way", "Writer", "ensure", "install", "remove"]
