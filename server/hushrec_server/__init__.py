"""The aggregation server: rounds, storage, releases. Knows no training library."""
