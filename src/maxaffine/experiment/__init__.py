"""Experiments: a grid of networks trained with and without a penalty, from one file, resumable at every epoch.

    specification   one experiment = one TOML file, validated       runs        the cells of its grid, each with a key
    rows            the data of a run as tensors                    training    one run, an epoch at a time
    measures        what is recorded about a network                executors   here, in processes, on Ray
    grid            all runs                                        records     what came out, as Parquet
    summary         means, intervals, paired differences            table       them as Markdown

Source of the protocol: Balestriero & Baraniuk 2018, arXiv 1805.06576, sec. 5.
"""
