"""Taking part in a shop's fleet: a device learns with others, and nobody sees what it alone has learned."""
