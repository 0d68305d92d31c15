"""The command line: a client of the api, and of this machine's supervisor."""
