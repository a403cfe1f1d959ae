"""Arithmetic on tensors: which, how far, how packed; pure, torch only."""
