"""What the log of tenants costs, and how long a line is on its way: a module for each part of `logs`."""
