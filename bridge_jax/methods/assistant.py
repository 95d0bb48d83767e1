"""Trains the assistant on the teacher's rationales (end of BRIDGE's phase 1, 2512.20403)."""

import dataclasses

from bridge_jax.config import RunConfig
from bridge_jax.methods import names
from bridge_jax.methods.annotations import ANNOTATIONS, bought
from bridge_jax.methods.apprenticeship import WARMUP
from bridge_jax.methods.fitting import Fit, fit, fit_of
from bridge_jax.methods.teacher import selected_count
from bridge_jax.pipeline.artifacts import TRAINED, Artifact
from bridge_jax.pipeline.examples import Examples
from bridge_jax.pipeline.load import Load
from bridge_jax.pipeline.models import RoleModel
from bridge_jax.pipeline.stages import Stage
from bridge_jax.pipeline.storage import Folder
from bridge_jax.text.prompts import Mode
from bridge_jax.text.rendering import Rendering

ASSISTANT = Artifact(
    "apprenticeship/assistant",
    "Training the assistant",
    "train",
    "assistant",
    TRAINED,
    is_last=True,
)


@dataclasses.dataclass(frozen=True)
class Learning:
    """Parameters of the assistant's training.

    Attributes:
      how: it is trained.
      modes: in which it learns each rationale.
      labelled: whether its answers are the gold ones, or else the teacher's.
    """

    how: Fit
    modes: tuple[Mode, ...]
    labelled: bool


def learn(
    params: Learning,
    out: Folder,
    pool: Examples,
    assistant: RoleModel,
    reading: Rendering,
    warmed: Folder,
    annotated: Folder,
) -> None:
    """Trains the warmed assistant on the teacher's rationales.

    Where it is to explain gold answers, it learns each rationale twice: from the question alone,
    and from the question with its gold answer.
    """
    paid = bought(annotated, pool, params.labelled)
    in_modes = [reading.sequences(paid, mode) for mode in params.modes]
    sequences = [sequence for of_one in zip(*in_modes) for sequence in of_one]
    fit(out, "assistant", assistant.trainable(warmed), sequences, params.how)


def assistant(config: RunConfig, modes: tuple[Mode, ...]) -> Stage:
    """Returns the assistant's training on what the teacher was paid for."""
    return Stage(
        ASSISTANT,
        learn,
        Learning(fit_of(config, "assistant_training"), modes, config.data.labelled),
        {
            "pool": names.POOL,
            "assistant": names.ASSISTANT,
            "reading": names.TO_ASSISTANT,
            "warmed": WARMUP.name,
            "annotated": ANNOTATIONS.name,
        },
        Load("selected", selected_count(config), modes=modes),
    )
