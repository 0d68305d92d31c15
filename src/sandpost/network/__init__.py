"""Addresses, network namespaces and the firewall of sandboxes."""
