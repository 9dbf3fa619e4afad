"""The ledger's history: one file per change of its tables."""
