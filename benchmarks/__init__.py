"""Speed, memory, the paper's claims: one command each, a table of ratios taken in one run."""
