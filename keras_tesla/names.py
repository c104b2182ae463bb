"""Names that no other layer has."""


def unique_name(name: str, taken: set[str]) -> str:
    """Returns `name`, or the first of `name_1`, `name_2`, .. that is free, and takes it.

    Args:
        name: String.
        taken: The names that are not free. The returned one is added.
    """
    unique, number = name, 0
    while unique in taken:
        number += 1
        unique = f"{name}_{number}"
    taken.add(unique)
    return unique
