"""The walls around our own unprivileged processes: each gets what it needs of kernel and files, nothing else."""
