"""What other languages cost beside JavaScript: a module for each part of `languages`."""
