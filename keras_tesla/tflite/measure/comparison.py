"""The figures of one model divided by those of another, for the report."""

from keras_tesla.tflite.measure.measurement import Measurement

# Head and figure of each ratio; None where it was not measured.
_RATIOS = (
    ("median latency", lambda m: m.latency["median"]),
    ("p90", lambda m: m.latency["p90"]),
    ("load", lambda m: m.load),
    ("memory", lambda m: m.memory),
    ("standalone B", lambda m: m.bytes),
    ("file bytes", lambda m: m.file_bytes),
    ("multiply-adds", lambda m: m.multiply_adds),
)


def table(
    rows: list[Measurement], reference: list[Measurement]
) -> tuple[list[str], list[list[str]]]:
    """Returns heads and rows of text: each percentage that both have, from the highest down.

    Ratios are those of `rows` over `reference`, below 1 where it is less. The accuracy is the
    difference in percentage points. A column is left out if a figure of it is missing, or zero in
    the reference.

    Args:
        rows: Measurements of a model.
        reference: Those of the model that it is compared with.
    """
    by_percentage = {m.percentage: m for m in reference}
    pairs = [(m, by_percentage[m.percentage]) for m in rows if m.percentage in by_percentage]
    pairs.sort(key=lambda pair: -pair[0].percentage)
    heads, columns = ["%"], [[str(m.percentage) for m, _ in pairs]]
    accuracies = [(m.accuracy, other.accuracy) for m, other in pairs]
    known = [(one, other) for one, other in accuracies if one is not None and other is not None]
    if len(known) == len(pairs):
        heads.append("accuracy, points")
        columns.append([f"{100 * (one - other):+.2f}" for one, other in known])
    for head, figure in _RATIOS:
        figures = [(figure(m), figure(other)) for m, other in pairs]
        if all(value is not None and other for value, other in figures):
            heads.append(head)
            columns.append([_ratio(value / other) for value, other in figures])
    return heads, [list(cells) for cells in zip(*columns, strict=True)]


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"
