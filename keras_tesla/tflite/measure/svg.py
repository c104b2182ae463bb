"""A line plot as inline SVG: no package to draw with, nothing to load, sharp at every size."""

import html
import itertools
import math

COLORS = 8  # the page has a rule `.s0 { color: .. }` for each; further series are dashed

_WIDTH, _HEIGHT = 480, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 16, 16, 50
_LETTER, _LINE = 6.6, 12  # the size of a letter of a point's name, which is set in 11 units
_GAP = 7  # from a point to its name
# Where a name may stand, the best first: (across, down) in widths and heights of it.
_SIDES = (
    *((-0.6, -0.8), (0, -1), (0, 1), (1, 0), (0.8, 0.6), (0.6, -0.8), (-0.6, 0.8), (-1, 0)),
    *((-0.9, -0.6), (0.5, 0.9), (1, 0.4)),
)


def plot(
    series: dict[str, list[tuple[float, float, str, str]]], x: str, y: str, title: str, zero: bool
) -> str:
    """Returns a plot with a line through the points of each series.

    Names stand next to their points where they touch nothing else, and are left out elsewhere; the
    details are in the tooltips.

    Args:
        series: {label: [(x, y, name of the point or "", tooltip), ..]}; at least one point.
        x: What stands below.
        y: What stands beside.
        title: What a screen reader says.
        zero: Bool, whether the y axis begins at 0; the x axis always does.
    """
    points = [point for line in series.values() for point in line]
    xs = ticks(0, max(p[0] for p in points))
    low, high = min(p[1] for p in points), max(p[1] for p in points)
    ys = ticks(0 if zero else low, high)

    def place(point):
        right = (point[0] - xs[0]) / (xs[-1] - xs[0])
        up = (point[1] - ys[0]) / (ys[-1] - ys[0])
        return (
            _LEFT + right * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM),
        )

    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(title)}">',
        *_axes(xs, ys, place, x, y),
    ]
    placed = [[place(point) for point in line] for line in series.values()]
    for number, (line, places) in enumerate(zip(series.values(), placed, strict=True)):
        if not line:  # it keeps its color in every plot of a page
            continue
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        parts.append(f'<g class="{style(number)}"><polyline points="{path}"/>')
        parts += [
            f"<g><title>{html.escape(point[3])}</title>{marker(number, *where)}</g>"
            for point, where in zip(line, places, strict=True)
        ]
        parts.append("</g>")
    names = [[point[2] for point in line] for line in series.values()]
    return "".join([*parts, *_names(placed, names), "</svg>"])


def ticks(low: float, high: float) -> list[float]:
    """Returns about five round numbers from one not above `low` to one not below `high`.

    Example:

    >>> ticks(0, 27)
    [0, 10, 20, 30]
    >>> ticks(91.2, 97.9)
    [90, 92, 94, 96, 98]
    """
    span = high - low or 1
    size = 10.0 ** math.floor(math.log10(span / 4))
    step = next(size * n for n in (1, 2, 5, 10) if span / (size * n) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if last == first:
        last += 1
    made = [float(f"{n * step:.12g}") for n in range(first, last + 1)]
    return [int(v) if v.is_integer() else v for v in made]


def style(number: int) -> str:
    """Returns the classes of a series: its color, and whether it is dashed."""
    return f"s{number % COLORS}" + (" dashed" if number >= COLORS else "")


def marker(number: int, x: float, y: float) -> str:
    """Returns the mark of a series at a place; the shapes tell series apart without color."""
    offsets = (
        None,
        [(-4, -4), (4, -4), (4, 4), (-4, 4)],
        [(0, -5.5), (5, 4), (-5, 4)],
        [(0, -5.5), (5.5, 0), (0, 5.5), (-5.5, 0)],
    )[number % 4]
    if offsets is None:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'
    path = " ".join(f"{x + a:.1f},{y + b:.1f}" for a, b in offsets)
    return f'<polygon points="{path}"/>'


def _axes(xs, ys, place, x, y):
    left, bottom = place((xs[0], ys[0]))
    right, top = place((xs[-1], ys[-1]))
    for value in xs:
        at, _ = place((value, ys[0]))
        yield f'<path class="grid" d="M{at:.1f} {top:.1f}V{bottom:.1f}"/>'
        yield f'<text x="{at:.1f}" y="{bottom + 17:.1f}" text-anchor="middle">{value:,}</text>'
    for value in ys:
        _, at = place((xs[0], value))
        yield f'<path class="grid" d="M{left:.1f} {at:.1f}H{right:.1f}"/>'
        yield f'<text x="{left - 7:.1f}" y="{at + 4:.1f}" text-anchor="end">{value:,}</text>'
    middle = (left + right) / 2
    yield (
        f'<text x="{middle:.1f}" y="{_HEIGHT - 10}" text-anchor="middle">{html.escape(x)}</text>'
    )
    middle = (top + bottom) / 2
    yield (
        f'<text transform="translate(14 {middle:.1f}) rotate(-90)" text-anchor="middle">'
        f"{html.escape(y)}</text>"
    )


def _names(placed, names):
    """Writes the names of points, each where it touches no mark, line or other name, or nowhere."""
    taken = [(x - 6, y - 6, x + 6, y + 6) for line in placed for x, y in line]
    taken += [box for line in placed for box in _along(line)]
    for number, (line, texts) in enumerate(zip(placed, names, strict=True)):
        for (x, y), name in zip(line, texts, strict=True):
            wide = len(name) * _LETTER + 4
            for across, down in _SIDES:
                left = x - wide / 2 + across * (wide / 2 + _GAP)
                top = y - _LINE / 2 + down * (_LINE / 2 + _GAP)
                box = left, top, left + wide, top + _LINE
                inside = left > _LEFT and top > 0
                inside = inside and box[2] < _WIDTH and box[3] < _HEIGHT - _BOTTOM
                if name and inside and not any(_touch(box, other) for other in taken):
                    taken.append(box)
                    yield (
                        f'<text class="name {style(number)}" x="{left + wide / 2:.1f}" '
                        f'y="{top + _LINE - 2:.1f}" text-anchor="middle">{html.escape(name)}</text>'
                    )
                    break


def _along(line):
    """Returns small boxes that cover the lines between points."""
    for (x0, y0), (x1, y1) in itertools.pairwise(line):
        steps = int(max(abs(x1 - x0), abs(y1 - y0)) / 4) + 1
        for step in range(steps + 1):
            x, y = x0 + (x1 - x0) * step / steps, y0 + (y1 - y0) * step / steps
            yield x - 2, y - 2, x + 2, y + 2


def _touch(one, other):
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
