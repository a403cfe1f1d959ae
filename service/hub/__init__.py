"""The face that unmodified Hugging Face clients read: a recipe is a revision, its digest a commit.

Knows the Hub's addresses, headers and JSON; decides nothing. Publishing goes by our own way.
"""
