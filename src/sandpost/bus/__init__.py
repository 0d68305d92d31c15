"""The bus: where records go and are read again. `contract` says what a driver does; `local` and `kafka` are two."""
