"""Builds the one read-only root that all sandboxes of a machine share, and says which of its builds are in use."""
