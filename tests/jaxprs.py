"""What a traced function computes."""

import numpy as np
from jax.extend import core


def sizes(jaxpr):
    """Yields the size of every intermediate array, those of inner jaxprs included."""
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            yield int(np.prod(getattr(variable.aval, "shape", ()))), equation
        for inner in core.jaxprs_in_params(equation.params):
            yield from sizes(inner)
