"""The typed config of one run and its parts.

A config file is Python with a `get_config() -> RunConfig`. Every field of these classes can be
overridden: `--config.budget.queries=200`. Defaults are ours unless a paper is named.
"""

from bridge_jax.config.data import DataConfig as DataConfig
from bridge_jax.config.data import Domain as Domain
from bridge_jax.config.run import PROJECTIONS as PROJECTIONS
from bridge_jax.config.run import LoraConfig as LoraConfig
from bridge_jax.config.run import MeshConfig as MeshConfig
from bridge_jax.config.run import ModelConfig as ModelConfig
from bridge_jax.config.run import RunConfig as RunConfig
from bridge_jax.config.teacher import API_TEACHERS as API_TEACHERS
from bridge_jax.config.teacher import MOST_PARTS as MOST_PARTS
from bridge_jax.config.teacher import BudgetConfig as BudgetConfig
from bridge_jax.config.teacher import SelectionConfig as SelectionConfig
from bridge_jax.config.teacher import TeacherConfig as TeacherConfig
from bridge_jax.config.thinking import CONTROLS as CONTROLS
from bridge_jax.config.thinking import Control as Control
from bridge_jax.config.thinking import ReinforcementConfig as ReinforcementConfig
from bridge_jax.config.thinking import Reward as Reward
from bridge_jax.config.thinking import ThinkingConfig as ThinkingConfig
from bridge_jax.config.training import MOST_ROUNDS as MOST_ROUNDS
from bridge_jax.config.training import Curves as Curves
from bridge_jax.config.training import EvaluationConfig as EvaluationConfig
from bridge_jax.config.training import GenerationConfig as GenerationConfig
from bridge_jax.config.training import InstructConfig as InstructConfig
from bridge_jax.config.training import LogitsConfig as LogitsConfig
from bridge_jax.config.training import OnPolicyConfig as OnPolicyConfig
from bridge_jax.config.training import RationalesConfig as RationalesConfig
from bridge_jax.config.training import TrainConfig as TrainConfig
from bridge_jax.config.training import WarmupConfig as WarmupConfig
