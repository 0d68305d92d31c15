"""The bus: where records go and are read from again. `contract` says what a driver does; `local` and `kafka` are two."""
