"""Pages on runs: a diagnosis of one, and what many reached."""
