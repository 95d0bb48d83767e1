"""Names the inputs from outside the run (`methods.inputs` opens them)."""

from bridge_jax.pipeline.artifacts import Role

POOL, TEST = "data/pool", "data/test"
RECORDED = "data/recorded"  # What a recorded or programmatic teacher says of the pool.
REPLAY = "teacher/replay"  # A recorded run that answers in the teacher's place.
INSTRUCTIONS = "data/instructions"
ASSISTANT, STUDENT = "models/assistant", "models/student"
TO_ASSISTANT, TO_STUDENT = "rendering/assistant", "rendering/student"  # Of examples, for each role.
MESH = "mesh"
WORKDIR = "workdir"  # Whose ledger the teacher is paid from.
COUNT = "tokenizers/student"  # The number of tokens of a text, as the student reads it.


def model_of(role: Role) -> str:
    """Returns the name of a role's model."""
    return f"models/{role}"


def rendering_of(role: Role) -> str:
    """Returns the name of what renders examples for a role's model."""
    return f"rendering/{role}"
