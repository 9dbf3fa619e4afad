"""The ledger (SQL) and the artifact store (a folder)."""
