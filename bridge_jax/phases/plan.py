"""Which stages a run consists of, in order."""

from bridge_jax.config import RunConfig
from bridge_jax.phases import apprenticeship, evaluate, instruct, logits, rationales, tutoring
from bridge_jax.phases.evaluate import Candidate
from bridge_jax.phases.stages import Stage

PHASES = ("all", "apprenticeship", "tutoring", "evaluate")


def stages(config: RunConfig, phase: str = "all") -> list[Stage]:
    """Returns the stages of `phase` and of the phases before it."""
    through = len(PHASES) if phase == "all" else PHASES.index(phase)
    plan = _apprenticeship(config)
    if through >= PHASES.index("tutoring"):
        plan += _tutoring(config)
    if through >= PHASES.index("evaluate"):
        plan += [evaluate.stage(candidate) for candidate in candidates(config)]
    return plan


def candidates(config: RunConfig) -> list[Candidate]:
    """Returns the models that are measured."""
    first = instruct.instruct_stage(config)
    found = [Candidate("student_base", "student", None)]
    if first:
        found.append(Candidate("student_instruct", "student", first))
    if config.compare_direct and config.method == "bridge":
        found.append(Candidate("student_direct", "student", tutoring.DIRECT))
    found.append(Candidate("student", "student", tutoring.STUDENT))
    if config.has_rationales:
        found.append(Candidate("assistant_base", "assistant", None))
        found.append(Candidate("assistant", "assistant", rationales.author(config)))
    return found


def _apprenticeship(config: RunConfig) -> list[Stage]:
    if config.method == "labels":
        return []
    if config.method == "self":
        return [apprenticeship.WARMUP_STAGE]
    if not config.needs_assistant:
        return [apprenticeship.BLIND_SELECTION_STAGE, apprenticeship.ANNOTATIONS_STAGE]
    plan = [
        apprenticeship.WARMUP_STAGE,
        *apprenticeship.selection_stages(config),
        apprenticeship.ANNOTATIONS_STAGE,
    ]
    return plan + [apprenticeship.ASSISTANT_STAGE] * (config.method == "bridge")


def _tutoring(config: RunConfig) -> list[Stage]:
    plan = [instruct.INSTRUCT_STAGE] if config.instruct.examples else []
    if config.has_rationales:
        plan += rationales.stages(config) + logits.stages(config)
    if config.compare_direct and config.method == "bridge":
        plan.append(tutoring.direct_stage(config))
    return [*plan, tutoring.student_stage(config)]
