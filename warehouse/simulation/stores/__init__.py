"""The three source systems as the simulation writes them: set-based, batched, nothing read back."""
