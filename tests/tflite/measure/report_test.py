"""The report: one page that needs nothing beside it, whatever the names and figures in it are."""

import dataclasses
import html.parser
import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_tesla.tflite.measure import report, svg
from keras_tesla.tflite.measure.benchmark import Benchmark
from keras_tesla.tflite.measure.measurement import LATENCY, Measurement

PERCENTAGES = list(range(100, 0, -10))
HOSTILE = "</title></svg><script>alert(1)</script><img src=x onerror=\"alert('2')\">&amp;"


def measurements(percentages=PERCENTAGES, slower=1.0, **changes):
    rows = [
        Measurement(
            model="mlp",
            mode="percentage_input",
            storage="shared",
            quantization=None,
            percentage=p,
            file="model.tflite",
            file_bytes=400_000,
            bytes=40 * p * p,
            multiply_adds=10 * p * p,
            accuracy=0.97 - 0.1 * (1 - p / 100) ** 3,
            batch_size=1,
            latency=dict.fromkeys(LATENCY, slower * 1e-9 * (p * p + 500)),
            load=0.002,
            memory=500_000,
        )
        for p in percentages
    ]
    return tuple(dataclasses.replace(row, **changes) for row in rows)


def benchmark(*rows, machine=None, settings=None):
    machine = {"cpu": "a CPU", "cores": 2} if machine is None else machine
    return Benchmark(machine, {"runs": 50} if settings is None else settings, sum(rows, ()))


NOT_CLOSED = {"meta"}


class Page(html.parser.HTMLParser):
    """Reads a page as a browser does: its text, its elements, and what is not closed."""

    def __init__(self, *benchmarks, folder):
        super().__init__()
        self.source = report.write(benchmarks, folder / "report.html").read_text("utf-8")
        self.open, self.tags, self.texts = [], [], []
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in NOT_CLOSED:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def captions(self):
        return re.findall(r"<figcaption>(.*?)</figcaption>", self.source)

    @property
    def tables(self):
        """(title, heads, rows) of each."""
        parts = re.findall(
            r"<h2>(.*?)</h2>.*?<thead>(.*?)</thead><tbody>(.*?)</tbody>", self.source
        )
        texts = re.compile(r"<t[hd].*?>(.*?)</t[hd]>").findall
        return [(t, texts(head), [texts(x) for x in b.split("</tr>")[:-1]]) for t, head, b in parts]

    def lines(self, caption):
        """The points of each line of a plot."""
        figure = self.source.split(f"<figcaption>{caption}</figcaption>")[1].split("</figure>")[0]
        return [
            [tuple(map(float, point.split(","))) for point in points.split()]
            for points in re.findall(r'<polyline points="(.*?)"', figure)
        ]


# What is on the page.


def test_a_page_shows_accuracy_over_latency_and_over_bytes(tmp_path):
    page = Page(benchmark(measurements()), folder=tmp_path)
    assert page.captions == ["Accuracy over latency", "Accuracy over bytes"]
    for caption in page.captions:
        (line,) = page.lines(caption)
        assert len(line) == 10
        assert line == sorted(line)  # a higher percentage costs more: further right
        heights = [y for _, y in line]
        assert heights == sorted(heights, reverse=True)  # and is more accurate: further up
        assert all(0 < x < 480 and 0 < y < 340 for x, y in line)
    assert "Benchmark of mlp" in page.texts
    assert "cpu a CPU, cores 2, runs 50" in page.texts
    assert "mlp: percentage_input, shared, not quantized" in page.texts


def test_a_point_lies_where_its_figures_say(tmp_path):
    rows = measurements([100]) + measurements([50], accuracy=0.95)
    rows = tuple(
        dataclasses.replace(row, accuracy=a, latency=dict.fromkeys(LATENCY, t))
        for row, a, t in zip(rows, (0.94, 0.90), (20e-6, 10e-6), strict=True)
    )
    (line,) = Page(benchmark(rows), folder=tmp_path).lines("Accuracy over latency")
    # The x axis goes from 0 to 20 us and from 58 to 464 units, the y axis from 90 to 94 %.
    assert line == [(261.0, 290.0), (464.0, 16.0)]


def test_the_table_holds_every_figure(tmp_path):
    rows = measurements([100, 10])
    page = Page(benchmark(rows), folder=tmp_path)
    ((title, _, cells),) = page.tables
    assert title == "mlp: percentage_input, shared, not quantized"
    assert cells == [[text(row) for _, text in report.COLUMNS] for row in rows]
    assert len(page.of("tr")) == 1 + len(rows)


def test_without_accuracy_cost_is_drawn_over_the_percentage_and_the_page_says_so(tmp_path):
    page = Page(benchmark(measurements(accuracy=None)), folder=tmp_path)
    assert page.captions == ["Latency over percentage", "Bytes over percentage"]
    assert any("accuracy of mlp is not known" in text for text in page.texts)
    assert all(len(page.lines(caption)[0]) == 10 for caption in page.captions)


def test_where_some_accuracies_are_missing_both_kinds_are_drawn(tmp_path):
    rows = measurements(), measurements(model="other", accuracy=None)
    page = Page(benchmark(*rows), folder=tmp_path)
    assert len(page.captions) == 4
    assert [len(page.lines(caption)) for caption in page.captions] == [1, 1, 2, 2]
    assert any("accuracy of other is not known" in text for text in page.texts)
    # A model has its color in every plot.
    assert page.source.count('<g class="s1"><polyline') == 2


def test_models_and_benchmarks_are_set_side_by_side_with_a_legend(tmp_path):
    one = benchmark(measurements(), measurements(model="int8", slower=0.4))
    two = benchmark(measurements(slower=3), machine={"cpu": "another CPU"})
    page = Page(one, two, folder=tmp_path)
    assert "Benchmark of 3 models" in page.texts
    assert [len(page.lines(caption)) for caption in page.captions] == [3, 3]
    legend = page.source.split("class=legend")[1].split("</ul>")[0]
    assert re.findall(r"</svg>(.*?)</li>", legend) == ["mlp [1]", "int8 [1]", "mlp [2]"]
    assert "cpu another CPU, runs 50" in page.texts
    assert len(page.of("ol")) == 1
    assert "class=legend" not in Page(two, folder=tmp_path / "one").source


def test_the_second_file_is_compared_with_the_first_percentage_by_percentage(tmp_path):
    first = measurements([100, 50, 10])
    second = measurements([50, 100, 20], slower=0.25, accuracy=0.95, memory=250_000, bytes=100)
    page = Page(benchmark(first), benchmark(second), folder=tmp_path)
    title, heads, rows = page.tables[0]
    assert title == "mlp [2], relative to mlp [1]"
    assert heads == [
        *("%", "accuracy, points", "median latency", "p90", "load", "memory"),
        *("standalone B", "file bytes", "multiply-adds"),
    ]
    # 0.95 - 0.97; 0.95 - (0.97 - 0.1 * 0.5 ** 3). Bytes: 100 of 400,000 and of 100,000.
    assert rows == [
        ["100", "-2.00", "0.25", "0.25", "1.00", "0.50", "0.00025", "1.00", "1.00"],
        ["50", "-0.75", "0.25", "0.25", "1.00", "0.50", "0.001", "1.00", "1.00"],
    ]
    assert len(page.tables) == 3


def test_what_was_not_measured_is_not_compared(tmp_path):
    first = measurements([100, 50], memory=None, accuracy=None)
    page = Page(benchmark(first), benchmark(measurements([100, 50])), folder=tmp_path)
    _, heads, rows = page.tables[0]
    assert not {"accuracy, points", "memory"} & set(heads)
    assert [len(row) for row in rows] == [len(heads)] * 2
    other = benchmark(measurements([30]))
    page = Page(benchmark(first), other, folder=tmp_path / "no_percentage_in_common")
    assert not any("relative to" in title for title, *_ in page.tables)


def test_more_models_than_colors_stay_apart(tmp_path):
    rows = [measurements(model=f"m{i}", slower=1 + i / 10) for i in range(svg.COLORS + 2)]
    page = Page(benchmark(*rows), folder=tmp_path)
    styles = re.findall(r'<g class="(.*?)"><polyline', page.source)[: len(rows)]
    assert len(set(styles)) == len(rows)
    assert styles[0] == "s0"
    assert styles[svg.COLORS] == "s0 dashed"


def test_one_point_makes_a_plot(tmp_path):
    page = Page(benchmark(measurements([30])), folder=tmp_path)
    assert [len(line) for caption in page.captions for line in page.lines(caption)] == [1, 1]


def test_zeros_make_a_plot(tmp_path):
    rows = measurements(bytes=0, accuracy=0.0, latency=dict.fromkeys(LATENCY, 0.0))
    page = Page(benchmark(rows), folder=tmp_path)
    assert "nan" not in page.source


@pytest.mark.parametrize(
    ("seconds", "size", "units"),
    [
        (5e-6, 900, ("median latency, µs", "bytes, standalone")),
        (9e-3, 90_000, ("median latency, µs", "kB, standalone")),
        (2.0, 3_000_000, ("median latency, ms", "MB, standalone")),
    ],
)
def test_units_fit_the_figures(seconds, size, units, tmp_path):
    rows = measurements(bytes=size, latency=dict.fromkeys(LATENCY, seconds))
    page = Page(benchmark(rows), folder=tmp_path)
    assert set(units) <= set(page.texts)


# What the page must not do.


def test_a_page_loads_nothing_and_runs_nothing(tmp_path):
    page = Page(benchmark(measurements()), folder=tmp_path)
    assert not re.search(r"https?:|url\(|@import|<script|<link|<img", page.source)
    (policy,) = [m["content"] for m in page.of("meta") if "http-equiv" in m]
    assert policy.startswith("default-src 'none';")
    names = {name for _, attributes in page.tags for name in attributes}
    assert not names & {"src", "href", "style"}
    assert not [name for name in names if name.startswith("on")]


def test_names_from_files_are_text_and_nothing_else(tmp_path):
    plain = Page(benchmark(measurements(), measurements(model="b", accuracy=None)), folder=tmp_path)
    rows = [
        measurements(model=HOSTILE + which, mode=HOSTILE, storage=HOSTILE, quantization=HOSTILE)
        for which in "ab"
    ]
    rows[1] = tuple(dataclasses.replace(row, accuracy=None, file=HOSTILE) for row in rows[1])
    places = {"machine": {HOSTILE: HOSTILE}, "settings": {HOSTILE: [HOSTILE]}}
    page = Page(benchmark(*rows, **places), folder=tmp_path / "hostile")
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    assert HOSTILE + "a" in page.texts
    names = {name for _, attributes in page.tags for name in attributes}
    assert names == {name for _, attributes in plain.tags for name in attributes}


def test_names_of_points_touch_nothing(tmp_path):
    rows = [measurements(model=f"m{i}", slower=1 + i / 3) for i in range(4)]
    page = Page(benchmark(*rows), folder=tmp_path)
    figure = page.source.split("<figcaption>Accuracy over latency")[1].split("</figure>")[0]
    found = re.findall(r'<text class="name.*?" x="(.*?)" y="(.*?)".*?>(\d+ %)', figure)
    assert len(found) > 10
    # A letter of 11 units takes about 6; a line about 11.
    boxes = [
        (float(x) - 3 * len(name), float(y) - 9, float(x) + 3 * len(name), float(y) + 2)
        for x, y, name in found
    ]
    points = [
        (x - 4, y - 4, x + 4, y + 4)
        for line in page.lines("Accuracy over latency")
        for x, y in line
    ]
    for (i, one), (j, other) in itertools.product(enumerate(boxes), enumerate(boxes + points)):
        if i != j:
            assert (
                one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
            )


def test_no_benchmark_makes_no_page(tmp_path):
    with pytest.raises(ValueError, match="at least one benchmark"):
        report.write([], tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_a_page_is_not_overwritten_unasked(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="already exists"):
        benchmark(measurements()).report(path)
    assert path.read_text() == "mine"
    assert benchmark(measurements()).report(path, overwrite=True) == path
    assert path.read_text().startswith("<!doctype html>")


# Ticks.


@given(st.floats(0, 1e9), st.floats(0, 1e9))
def test_ticks_are_few_and_round_and_enclose_the_figures(one, other):
    low, high = min(one, other), max(one, other)
    made = svg.ticks(low, high)
    assert 2 <= len(made) <= 7
    assert made == sorted(set(made))
    step = made[1] - made[0]
    # A billionth of a step may be missing: rounding must not add a whole step.
    assert made[0] <= low + 1e-6 * step
    assert made[-1] >= high - 1e-6 * step
    assert made[0] > low - 1.001 * step
    assert made[-1] < high + 1.001 * step or high == low
