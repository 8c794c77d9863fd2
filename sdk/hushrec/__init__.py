"""The device runtime of hushrec."""
