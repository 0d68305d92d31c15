"""What several test folders share: a really started platform, a client that counts, a look at the machine."""
