"""Benchmarks as one HTML page: plots, tables, and where the figures come from."""

import html
import pathlib

from keras_tesla.tflite.measure import comparison, svg, textfile
from keras_tesla.tflite.measure.measurement import Measurement


def _or_none(value, text):
    return "-" if value is None else text(value)


# Head and text of each column, here and in `Benchmark.table`.
COLUMNS = (
    ("%", lambda m: str(m.percentage)),
    ("accuracy %", lambda m: _or_none(m.accuracy, lambda a: f"{100 * a:.2f}")),
    ("median µs", lambda m: f"{1e6 * m.latency['median']:,.2f}"),
    ("min", lambda m: f"{1e6 * m.latency['min']:,.2f}"),
    ("mean", lambda m: f"{1e6 * m.latency['mean']:,.2f}"),
    ("p90", lambda m: f"{1e6 * m.latency['p90']:,.2f}"),
    ("p99", lambda m: f"{1e6 * m.latency['p99']:,.2f}"),
    ("load ms", lambda m: f"{1e3 * m.load:,.2f}"),
    ("memory KiB", lambda m: _or_none(m.memory, lambda b: f"{b / 1024:,.0f}")),
    ("standalone B", lambda m: f"{m.bytes:,}"),
    ("file bytes", lambda m: f"{m.file_bytes:,}"),
    ("multiply-adds", lambda m: _or_none(m.multiply_adds, lambda n: f"{n:,}")),
)


def place(benchmark) -> str:
    """Returns a line that says where, when and how a `Benchmark` was measured."""
    facts = benchmark.machine | benchmark.settings
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def models(benchmark) -> dict[str, list[Measurement]]:
    """Returns {a line that describes a model: its measurements} of a `Benchmark`."""
    found: dict[str, list[Measurement]] = {}
    for m in benchmark.measurements:
        kind = ", ".join(filter(None, (m.mode, m.storage, m.quantization or "not quantized")))
        batch = "" if m.batch_size == 1 else f", {m.batch_size} examples a call"
        found.setdefault(f"{m.model}: {kind}{batch}", []).append(m)
    return found


def write(benchmarks, path, overwrite: bool = False) -> pathlib.Path:
    """Writes benchmarks as one self-contained page: no script, and no other file or address.

    Args:
        benchmarks: Sequence of `Benchmark`; each model of each becomes a line in the plots.
        path: The HTML file.
        overwrite: Bool, whether a file that is there may be replaced.

    Raises:
        ValueError: If there is no benchmark.
        FileExistsError: If there is a file and `overwrite` is false.
    """
    benchmarks = list(benchmarks)
    if not benchmarks:
        raise ValueError("`benchmarks` must hold at least one benchmark. Received none.")
    return textfile.write(path, _page(benchmarks), overwrite)


def _page(benchmarks):
    lines = list(_lines(benchmarks))
    what = lines[0][0] if len(lines) == 1 else f"{len(lines)} models"
    title = html.escape(f"Benchmark of {what}")
    places = "".join(f"<li>{html.escape(place(b))}</li>" for b in benchmarks)
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        # Nothing in the page can load or run anything, whatever the names in it are.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{title}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{title}</h1><ol{' class=one' if len(benchmarks) == 1 else ''}>{places}</ol>",
        *_plots(lines),
        *_comparisons(lines),
        *(_figures(title, rows) for _, title, rows in lines),
        "<dl>",
        *(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in _MEANINGS.items()),
        "</dl></body></html>\n",
    ]
    return "\n".join(parts)


def _lines(benchmarks):
    """Yields (label, title, measurements) of each line in the plots."""
    for number, benchmark in enumerate(benchmarks, 1):
        which = f" [{number}]" if len(benchmarks) > 1 else ""
        for title, rows in models(benchmark).items():
            yield rows[0].model + which, title + which, sorted(rows, key=lambda m: m.percentage)


def _all(lines):
    return [m for _, _, rows in lines for m in rows]


def _plots(lines):
    if len(lines) > 1:
        yield _legend([label for label, _, _ in lines])
    time, second = _unit(_TIMES, max(m.latency["median"] for m in _all(lines)))
    size, byte = _unit(_SIZES, max(m.bytes for m in _all(lines)))
    latency = f"median latency, {time}", lambda m: m.latency["median"] * second
    memory = f"{size}, standalone", lambda m: m.bytes * byte
    accuracy = "accuracy, %", lambda m: 100 * m.accuracy
    percentage = "percentage", lambda m: m.percentage

    def figure(title, x, y, kept, zero):
        series = {}
        for label, _, rows in lines:
            series[label] = [
                (
                    x[1](m),
                    y[1](m),
                    "" if x is percentage else f"{m.percentage} %",
                    _tooltip(label, m),
                )
                for m in rows
                if kept(m)
            ]
        drawn = svg.plot(series, x[0], y[0], title, zero)
        return f"<figure><figcaption>{title}</figcaption>{drawn}</figure>"

    def known(m):
        return m.accuracy is not None

    yield "<div class=plots>"
    if any(known(m) for m in _all(lines)):
        yield figure("Accuracy over latency", latency, accuracy, known, False)
        yield figure("Accuracy over bytes", memory, accuracy, known, False)
    unknown = [label for label, _, rows in lines if not all(map(known, rows))]
    if unknown:
        yield figure("Latency over percentage", percentage, latency, lambda m: True, True)
        yield figure("Bytes over percentage", percentage, memory, lambda m: True, True)
    yield "</div>"
    if unknown:
        yield (
            f"<p class=note>The accuracy of {html.escape(', '.join(unknown))} is not known: the "
            "export was given no validation data.</p>"
        )


# (name, how many make a second or a byte, the least value that is told in it)
_TIMES = (("ms", 1e3, 0.01), ("µs", 1e6, 0))
_SIZES = (("MB", 1e-6, 1e6), ("kB", 1e-3, 1e3), ("bytes", 1, 0))


def _unit(units, largest):
    return next((name, factor) for name, factor, least in units if largest >= least)


def _tooltip(label, m):
    return f"{label}: " + ", ".join(f"{head} {text(m)}" for head, text in COLUMNS)


def _legend(labels):
    entries = [
        f'<li><svg viewBox="-14 -7 28 14" class="{svg.style(number)}"><path d="M-14 0H14"/>'
        f"{svg.marker(number, 0, 0)}</svg>{html.escape(label)}</li>"
        for number, label in enumerate(labels)
    ]
    return f"<ul class=legend>{''.join(entries)}</ul>"


def _comparisons(lines):
    """Yields a table of ratios for each model after the first, which is the one compared with."""
    (first, _, reference), *others = lines
    for label, _, rows in others:
        heads, cells = comparison.table(rows, reference)
        if cells:
            yield _table(f"{label}, relative to {first}", heads, cells)
            yield (
                "<p class=note>Figures divided by those of the same percentage there, below 1 "
                "where they are less; of the accuracy, the difference.</p>"
            )


def _figures(title, rows):
    cells = [[text(m) for _, text in COLUMNS] for m in reversed(rows)]
    return _table(title, [head for head, _ in COLUMNS], cells)


def _table(title, heads, rows):
    head = "".join(f"<th scope=col>{text}</th>" for text in heads)
    body = "".join(
        f"<tr><th scope=row>{first}</th>{''.join(f'<td>{text}</td>' for text in others)}</tr>"
        for first, *others in rows
    )
    return (
        f"<h2>{html.escape(title)}</h2><div class=wide><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


_MEANINGS = {
    "accuracy": "On the validation data given to the export, as written in the file.",
    "latency": "LiteRT's invocation only, inputs set before; over all timed calls of all rounds.",
    "load": "From opening the file to the first result; the median over the rounds. The file was "
    "in the system's cache.",
    "memory": "By how much resident memory grew at most in a process that opened the file, mapped "
    "parts of the file included.",
    "standalone B": "Size of a file of this percentage only.",
}

_LIGHT = ("#0b62a8", "#c2410c", "#0f7b54", "#a21caf", "#8a6100", "#0e7490", "#be123c", "#4b5563")
_DARK = ("#6cb6ff", "#ff9d5c", "#4fd6a0", "#e58cf2", "#e3c14b", "#5cd3e8", "#ff8ba0", "#b6bfcc")


def _colors(colors):
    return "".join(f"--s{number}:{color};" for number, color in enumerate(colors))


_STYLE = (
    f":root{{color-scheme:light dark;--ground:#fff;--text:#1b1f24;--faint:#d5dae0;"
    f"{_colors(_LIGHT)}}}"
    "@media (prefers-color-scheme:dark){@media screen{"
    f":root{{--ground:#14171b;--text:#e4e8ed;--faint:#343b44;{_colors(_DARK)}}}}}}}"
    + "".join(f".s{number}{{color:var(--s{number})}}" for number in range(svg.COLORS))
    + """
@media print{:root{color-scheme:light}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:76rem;background:var(--ground);color:var(--text);
font:1rem/1.45 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.5rem;line-height:1.2;margin:.5rem 0}
h2{font-size:1.1rem;margin:1.6rem 0 .4rem;break-after:avoid}
ol{padding-left:1.5rem}ol.one{padding:0;list-style:none}
.legend{display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;padding:0;list-style:none}
.legend svg{display:inline-block;width:2rem;height:1rem;vertical-align:middle;margin-right:.4rem}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:1rem}
figure{margin:0;break-inside:avoid}figcaption{font-weight:600}
svg{display:block;width:100%;height:auto;overflow:visible}
svg text{fill:var(--text);font-size:13px}
svg .name{font-size:11px;fill:currentColor;stroke:var(--ground);stroke-width:3px;paint-order:stroke}
svg .grid{stroke:var(--faint)}
svg :is(polyline,[class^=s] path,path:not(.grid)){fill:none;stroke:currentColor;stroke-width:2}
svg :is(circle,polygon){fill:currentColor;stroke:var(--ground)}
.dashed{stroke-dasharray:6 4}.dashed :is(circle,polygon){stroke-dasharray:none}
.wide{overflow-x:auto}
table{border-collapse:separate;border-spacing:0;font-variant-numeric:tabular-nums;font-size:.9rem}
th,td{padding:.25rem .6rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--faint)}
th:first-child{position:sticky;left:0;background:var(--ground)}
tr{break-inside:avoid}
dl{font-size:.9rem;margin-top:2rem}dt{font-weight:600;break-after:avoid}dd{margin:0 0 .4rem}
@media print{@page{size:A4 landscape;margin:12mm}body{padding:0;max-width:none;font-size:10pt}
table{font-size:8pt}th:first-child{position:static;background:none}.wide{overflow:visible}
.plots{grid-template-columns:1fr 1fr}}
"""
)
