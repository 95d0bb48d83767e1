"""Measures how large the assistant must be.

    python -m launch.study --config=configs/studies/assistant_size.py --workdir=runs/practice

The assistant is SmolLM2-135M cut to 6 (as the student is), 12, 18, 24 or all of its 30 layers. The
reference is the student trained on the same paid answers directly. A model with layers cut out is
not only smaller, but also damaged: if you have checkpoints of several sizes, vary
`assistant.checkpoint` instead.

18 runs. Took 13 min 36 s on two CPU cores at revision 4f41199, after other studies in the same
workdir. Only with the whole assistant was the student better than the direct student: 83% against
43%; with fewer layers it had 13 to 31%.
"""

from bridge_jax.study.study import Study, StudyRun
from configs.studies import common

LAYERS = (6, 12, 18, 24, 30)


def get_study() -> Study:
    """Returns the study."""
    return Study(
        "assistant_size",
        "How large must the assistant be?",
        tuple(run for seed in common.SEEDS for run in _runs(seed)),
        reference="direct",
        axis="layers of the assistant",
    )


def _runs(seed: int) -> list[StudyRun]:
    asked = common.share(5)
    return [
        common.run("direct", seed, *asked, "selection.strategy=random", "method=direct"),
        *(
            common.run(
                "bridge",
                seed,
                *asked,
                "selection.strategy=random",  # So that all are taught by the same answers.
                f"assistant.keep_layers={common.layers(count)}",
                x=count,
            )
            for count in LAYERS
        ),
    ]
