"""Pseudonyms and the vault: what keeps personal data in its place."""
