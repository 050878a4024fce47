"""Studies: experiments on the open questions of arXiv 2307.00457, one command each.

A study compares variants of GenRec, its arms, on the same held-out targets. The questions are in
:mod:`genrec.studies.questions`; one runner trains and measures every arm in a process of its own.
"""
