"""The lowest package: the root of all errors and the checks that every package shares."""
