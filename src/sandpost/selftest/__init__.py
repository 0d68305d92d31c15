"""`sandpost selftest`: what a hostile tenant tries, tried against a running installation with tenants of its own."""
