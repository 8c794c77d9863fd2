"""What a shop, its privacy officer and its shoppers can be told: spent and left, from a verified ledger."""
