"""BRIDGE-JAX: turn an expensive black-box LLM into a small model you own, under a stated budget.

    import bridge_jax as bj

The names below are imported when they are first used, so that `import bridge_jax` loads no JAX.
"""

import importlib.metadata

from etils import epy

__version__ = importlib.metadata.version("bridge-jax")

with epy.lazy_api_imports(globals()):
    from bridge_jax.config import (
        BudgetConfig,
        DataConfig,
        EvaluationConfig,
        GenerationConfig,
        InstructConfig,
        LoraConfig,
        MeshConfig,
        ModelConfig,
        RationalesConfig,
        RunConfig,
        SelectionConfig,
        TeacherConfig,
        TrainConfig,
        WarmupConfig,
    )
    from bridge_jax.data.example import Example, Splits
    from bridge_jax.data.rows import BadRowsError
    from bridge_jax.errors import UserError
    from bridge_jax.library import (
        generate,
        is_right,
        load_model,
        rationale_of,
        read_data,
        run,
        save,
        score,
        select,
        train,
    )
    from bridge_jax.pipeline.models import Model
    from bridge_jax.selection.scores import Scores
    from bridge_jax.training.objectives import Objective
