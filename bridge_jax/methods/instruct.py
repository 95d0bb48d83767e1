"""Trains the student on generic instructions before any other training."""

from bridge_jax.config import RunConfig
from bridge_jax.methods import names
from bridge_jax.methods.fitting import Fit, fit, fit_of
from bridge_jax.pipeline.artifacts import TRAINED, Artifact
from bridge_jax.pipeline.load import Load
from bridge_jax.pipeline.models import RoleModel
from bridge_jax.pipeline.stages import Stage
from bridge_jax.pipeline.storage import Folder
from bridge_jax.text.prompts import DrawnInstructions

INSTRUCT = Artifact(
    "tutoring/instruct", "Student’s instruction warm-up", "train", "student", TRAINED
)


def instruct(params: Fit, out: Folder, student: RoleModel, drawn: DrawnInstructions) -> None:
    """Trains the student on generic instructions, so that it follows prompts first."""
    fit(out, "instructions", student.trainable(), drawn.sequences, params)


def stages(config: RunConfig) -> list[Stage]:
    """Returns the warm-up, if there is one."""
    count = config.instruct.examples
    if not count:
        return []
    reads = {"student": names.STUDENT, "drawn": names.INSTRUCTIONS}
    load = Load("instructions", count)
    return [Stage(INSTRUCT, instruct, fit_of(config, "instruct.train"), reads, load)]


def begun(config: RunConfig) -> dict[str, str]:
    """Returns what a training of the student reads to begin with: its warm-up, if it has one."""
    return {"instructed": INSTRUCT.name} if config.instruct.examples else {}
