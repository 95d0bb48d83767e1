"""Studies: many runs that answer one question. The names of their files; importing is cheap."""

RUNS_FILE = "runs.json"  # The runs that the study has, for its results.
RUNS = "runs"  # The workdirs of its runs.
LEDGER = "ledger.sqlite"
