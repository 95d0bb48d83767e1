"""The names of what stages read from outside the run (`methods.inputs` opens them)."""

POOL, TEST = "data/pool", "data/test"
RECORDED = "data/recorded"  # What a recorded or programmatic teacher says of the pool.
REPLAY = "teacher/replay"  # A recorded run that answers in the teacher's place.
INSTRUCTIONS = "data/instructions"
ASSISTANT, STUDENT = "models/assistant", "models/student"
TO_ASSISTANT, TO_STUDENT = "rendering/assistant", "rendering/student"
MESH = "mesh"
WORKDIR = "workdir"  # Whose ledger the teacher is paid from.
COUNT = "tokenizers/student"  # The number of tokens of a text, as the student reads it.
