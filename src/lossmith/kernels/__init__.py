"""How it runs: row programs, the code generated from them, and what runs that code over a batch."""
