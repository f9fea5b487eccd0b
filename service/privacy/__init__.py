"""One person's data: its export, and its erasure everywhere but for ids in the ledger and the audit."""
