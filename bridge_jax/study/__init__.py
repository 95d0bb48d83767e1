"""Studies: many runs that answer one question.

This file has only the names of a study's files, so importing it is cheap.
"""

RUNS_FILE = "runs.json"  # Lists the study's runs; results are computed from it.
RUNS = "runs"  # The workdirs of its runs.
LEDGER = "ledger.sqlite"
