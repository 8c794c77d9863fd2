"""The `hushrec` command: each command parses, calls one function of a package below, and prints the result."""
