"""The bus: where records go and are read from again. `contract` says what every driver does; `local` and `kafka` are drivers."""
