"""How data gets in: one package per source, one boundary, one manifest, dlt underneath."""
