"""The files and folders of a study; importing them costs nothing."""

CELLS = "cells.json"  # What results need to know of the study.
RUNS = "runs"  # The workdirs of its runs.
LEDGER = "ledger.sqlite"
