"""The claims of the paper on robust weight signatures, measured through the service.

    python -m benchmarks.paper              # all of it: two nets, two data sets, three seeds
    python -m benchmarks.paper --quick      # five minutes: one seed of small trainings
    python -m benchmarks.paper --report     # only the tables and plots of what is measured

images.py          the data sets, cut into parts that share no image
corruptions.py     what is done to the images
nets.py            a net without and one with batch norm
trainings.py       which nets are trained, in which order; trains and keeps them
experiments.py     what is measured, as lists of cases
served.py          the registry: publishes nets, extracts patches, hands out patched weights
packing.py         the paper's own quantizer in the registry's place
judging.py         which images patched nets read rightly, remembered by the bytes of the net
measuring.py       from cases to rows
identification.py  which corruption an unknown patch is about
statistics.py      means over seeds, paired differences
tables.py, plots.py, headline.py, report.py

Everything lies in a cache folder and is gone on with where it stopped.
"""
