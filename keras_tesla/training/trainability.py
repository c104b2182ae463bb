"""Which weights of a network get a gradient: what callbacks change temporarily."""


def of(network, layers) -> list[tuple]:
    """Returns (owner, attribute, value) of all that says so.

    Args:
        network: The model.
        layers: Its layers, also those in nested models.
    """
    # Layers first: their flag sets those of their variables.
    owners = {"trainable": [*layers, *network.variables], "trained_range": layers}
    return [
        (owner, name, getattr(owner, name))
        for name, all_of_them in owners.items()
        for owner in all_of_them
        if hasattr(owner, name)
    ]


def restore(values: list[tuple]):
    """Sets what `of` returned."""
    for owner, name, value in values:
        if getattr(owner, name) != value:
            setattr(owner, name, value)
