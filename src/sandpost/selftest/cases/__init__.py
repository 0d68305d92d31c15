"""The cases, a module each: what is tried, why it would work on a weaker system, what must be seen."""
