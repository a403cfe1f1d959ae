"""What the pages show, read with a few queries and no column that is not shown.

A catalogue page of a hundred lines costs one query; the registry's own functions read whole rows,
cards and signatures included, which a list has no use for.
"""
