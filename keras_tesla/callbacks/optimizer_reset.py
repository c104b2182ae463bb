"""Giving an optimizer fresh slots."""


def reset(optimizer, variables):
    """Gives every variable of an optimizer its first value; the learning rate stays as it is.

    Args:
        optimizer: A built `keras.optimizers.Optimizer`.
        variables: The variables that it was built with, in their order.
    """
    fresh = type(optimizer).from_config(optimizer.get_config())
    fresh.build(variables)
    for variable, first in zip(optimizer.variables, fresh.variables, strict=True):
        variable.assign(first)
