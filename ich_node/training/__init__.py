"""Make models: prepare data, fit networks, evaluate them, export bundles.

It shares ``decode``, ``windowing``, ``model``, ``triage`` and ``phantom`` with the node, so what is trained is what is
run; nothing of the node imports it. The command is ``ich-train``.

======================= =====================================================================================
``prepare/``            sources of labelled slices → a prepared set: shards of pixels, a table, a manifest
``prepared.py``         the prepared set on disk, and the records of its rows
``fit/``                a prepared set → a run: weights, log, scores of the slices held out
``predictions.py``      scores of slices with their truth, as a table
``sequence/``           the second stage: a head that reads the slices of a series in their order
``evaluate/``           scores → metrics with intervals, calibration, operating points, a page to read
``export.py``           a run and its evaluation → a model bundle for the node
``compare.py``          several backbones on the same folds and budget
``cli/``                every command
======================= =====================================================================================
"""
