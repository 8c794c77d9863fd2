"""The `hushrec` command line: parse, call one function, print."""
