"""BRIDGE-JAX: turn an expensive black-box LLM into a small model you own, under a stated budget.

    import bridge_jax as bj

The names below are imported when they are first used, so that `import bridge_jax` loads no JAX.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bridge_jax.config import BudgetConfig as BudgetConfig
    from bridge_jax.config import DataConfig as DataConfig
    from bridge_jax.config import EvaluationConfig as EvaluationConfig
    from bridge_jax.config import GenerationConfig as GenerationConfig
    from bridge_jax.config import InstructConfig as InstructConfig
    from bridge_jax.config import LoraConfig as LoraConfig
    from bridge_jax.config import MeshConfig as MeshConfig
    from bridge_jax.config import ModelConfig as ModelConfig
    from bridge_jax.config import RationalesConfig as RationalesConfig
    from bridge_jax.config import RunConfig as RunConfig
    from bridge_jax.config import SelectionConfig as SelectionConfig
    from bridge_jax.config import TeacherConfig as TeacherConfig
    from bridge_jax.config import TrainConfig as TrainConfig
    from bridge_jax.config import WarmupConfig as WarmupConfig
    from bridge_jax.data.example import Example as Example
    from bridge_jax.data.example import Splits as Splits
    from bridge_jax.data.rows import BadRowsError as BadRowsError
    from bridge_jax.errors import UserError as UserError
    from bridge_jax.library import generate as generate
    from bridge_jax.library import is_right as is_right
    from bridge_jax.library import load_model as load_model
    from bridge_jax.library import rationale_of as rationale_of
    from bridge_jax.library import read_data as read_data
    from bridge_jax.library import run as run
    from bridge_jax.library import save as save
    from bridge_jax.library import score as score
    from bridge_jax.library import select as select
    from bridge_jax.library import train as train
    from bridge_jax.pipeline.models import Model as Model
    from bridge_jax.selection.scores import Scores as Scores
    from bridge_jax.training.objectives import Objective as Objective

_HOMES = {
    "bridge_jax.config": (
        "BudgetConfig DataConfig EvaluationConfig GenerationConfig InstructConfig LoraConfig "
        "MeshConfig ModelConfig RationalesConfig RunConfig SelectionConfig TeacherConfig "
        "TrainConfig WarmupConfig"
    ),
    "bridge_jax.data.example": "Example Splits",
    "bridge_jax.data.rows": "BadRowsError",
    "bridge_jax.errors": "UserError",
    "bridge_jax.library": (
        "generate is_right load_model rationale_of read_data run save score select train"
    ),
    "bridge_jax.pipeline.models": "Model",
    "bridge_jax.selection.scores": "Scores",
    "bridge_jax.training.objectives": "Objective",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("bridge-jax")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'bridge_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOME_OF)
