"""Speed, memory and the paper's claims, measured: one command each, a table of ratios in one run."""
