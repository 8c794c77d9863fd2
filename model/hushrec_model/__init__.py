"""Reading a shop's log, training the Transformer and evaluating it (torch)."""
