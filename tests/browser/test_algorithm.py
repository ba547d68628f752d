"""One algorithm: what the browser reads off a curve is what Python reads off it."""

from __future__ import annotations

import csv
import io
import json
import os
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from browser.conftest import OpenPage
from browser.pages import recorded
from curve_points import GLM5, INFERENCEX, make_curve, make_points, point_set
from mtpbench_analysis.compare import Comparison, Ratio, Settings, compare, read_curves
from mtpbench_analysis.comparison_document import write_document
from mtpbench_analysis.comparisons import Filter, Question, compare_points
from mtpbench_analysis.curves.cells import Cell, Span
from mtpbench_analysis.curves.curve import Grouping
from mtpbench_analysis.curves.splines import Spline
from mtpbench_analysis.frame import CurvePoint
from mtpbench_analysis.importers import read_source
from mtpbench_analysis.metric_table import metric
from mtpbench_analysis.numbers import dollars, fixed, rate, speed, times
from mtpbench_analysis.report.page import read_part
from mtpbench_analysis.sentences import explain_no_ratio

PUBLIC = os.environ.get("MTPBENCH_PUBLIC_ROWS")
"""The 435 public rows, which are not in this repository; docs/public-rows.md says where they come from."""
SOURCES = [GLM5, INFERENCEX, *([Path(PUBLIC)] if PUBLIC else [])]
CLOSE = 1e-9


def comparisons_of(source: Path, **asked: Any) -> list[Comparison]:
    kept = Filter(hardware="b200") if source == GLM5 else Filter()
    question = Question(grouping=Grouping(pool=("image",)), **asked)
    return list(compare_points(read_source(source), question, kept).comparisons)


def random_points(noise: random.Random) -> list[CurvePoint]:
    """Two arms whose points may lie anywhere, far apart, at equal places, or alone."""
    points: list[CurvePoint] = []
    # All points metered alike, some not at all, or by two kinds of meter.
    meters = noise.choice(
        (("nvml",), ("nvml", None), ("nvml", "nvml", "nvml", "nvml, module scope"), (None,))
    )
    share = noise.uniform(0.05, 0.95)  # of output tokens: arms that differ much in it are not compared
    for arm in ("off", "mtp", "mtp-k1"):
        count = noise.choice((1, 2, 3, 4, 6, 9, 14))
        pairs = [
            (round(noise.uniform(5, 120), noise.choice((0, 1, 9))), 10 ** noise.uniform(0.5, 4.5))
            for _ in range(count)
        ]
        for point in make_points(arm, *pairs, engine="vllm"):
            total = point.tput_tps_per_gpu
            extra = {"output_tps_per_gpu": total * share, "input_tps_per_gpu": total * (1 - share)}
            meter = noise.choice(meters)
            power = None if meter is None else round(noise.uniform(100, 1200), noise.choice((0, 6)))
            points.append(
                CurvePoint(
                    arm=arm,
                    interactivity_tps=point.interactivity_tps,
                    tput_tps_per_gpu=total,
                    concurrency=point.concurrency,
                    hardware="b200",
                    engine="vllm",
                    power_w_per_gpu=power,
                    power_source=meter,
                    **extra,
                )
            )
    return points


def test_the_spline_equals_pythons(open_page: OpenPage) -> None:
    """Thousands of random curves, in the browser's own arithmetic."""
    noise = random.Random(11)
    curves = []
    for _ in range(2000):
        xs = sorted({noise.uniform(1, 200) for _ in range(noise.randint(1, 15))})
        ys = sorted((10 ** noise.uniform(-1, 5) for _ in xs), reverse=noise.random() < 0.9)
        at = [*xs, *(noise.uniform(xs[0], xs[-1]) for _ in range(10))]
        curves.append((xs, ys, at))
    page = open_page(comparisons_of(GLM5))
    source = read_part("script/numbers.js") + read_part("script/curve.js")
    found = page.evaluate(
        f"curves => {{ {source} return curves.map(([xs, ys, at]) => at.map(makeSpline(xs, ys))); }}", curves
    )
    for (xs, ys, at), values in zip(curves, found, strict=True):
        assert values == pytest.approx(Spline(xs, ys).at(at).tolist(), rel=CLOSE)


def test_the_worked_numbers_of_the_page(open_page: OpenPage) -> None:
    page = open_page(comparisons_of(GLM5))
    source = read_part("script/numbers.js") + read_part("script/curve.js")
    values = page.evaluate(
        f"() => {{ {source} const f = makeSpline([10, 30, 55, 80], [6000, 2000, 900, 300]);"
        " return [15, 20, 42, 60, 75].map(f).concat([5, 81].map(f), [makeSpline([0, 100], [0, 1000])(50)]); }"
    )
    assert values[:5] == pytest.approx([4737.5, 3580, 1299.2768, 744, 396], rel=CLOSE)
    assert values[5:] == [None, None, 500]


def test_figures_look_the_same(open_page: OpenPage) -> None:
    noise = random.Random(3)
    values = [10 ** noise.uniform(-6, 6) for _ in range(3000)]
    values += [54.25, 13.5, 0.125, 1e-7, 2.5e-8, 199.95, 200.0, 9.995, 99.995, 0.0095, 1234567.0]
    values += [9.99e14, 1e15, 1.234567e16, 5e34, 1.2e100]
    page = open_page(comparisons_of(GLM5))
    found = page.evaluate(
        f"values => {{ {read_part('script/numbers.js')}"
        " return values.map((v) => [fixed(v, 0), fixed(-v, 1), fixed(v, 3), rate(v), speed(v), times(v)]"
        ".concat(v >= 0.01 ? [dollars(v)] : [])); }",
        values,
    )
    for v, texts in zip(values, found, strict=True):
        own = [fixed(v, 0), fixed(-v, 1), fixed(v, 3), rate(v), speed(v), times(v)]
        assert texts == own + ([dollars(v)] if v >= 0.01 else [])


def check_line(line: dict[str, str], cell: Cell, ratio: Ratio | None) -> None:
    def number(name: str) -> float | None:
        return float(line[name]) if line[name] else None

    assert line["state"] == cell.state
    assert line["wide_gap"] == str(cell.wide_gap).lower()
    pairs: list[tuple[str, float | Span | None]] = [
        ("tput_tps_per_gpu", cell.tput_tps_per_gpu),
        ("runs_at_tps", cell.runs_at_tps),
        ("output_tps_per_gpu", cell.output_tps_per_gpu),
        ("input_tps_per_gpu", cell.input_tps_per_gpu),
        ("tps_per_mw", cell.tps_per_mw),
        ("joules_per_token", cell.joules_per_token),
        ("lower_tput_tps_per_gpu", cell.lower and cell.lower.y),
        ("upper_interactivity_tps", cell.upper and cell.upper.x),
    ]
    for tier in cell.economics.tiers if cell.economics else ():
        kinds = ("total", "output", "input")
        pairs += [(f"usd_per_m_{kind}_{tier}", cell.usd_per_m(kind, tier)) for kind in kinds]
    if ratio is not None:
        pairs.append(("tput_ratio", ratio.value))
        pairs.append(("envelope_low", ratio.envelope and ratio.envelope[0]))
        pairs.append(("envelope_high", ratio.envelope and ratio.envelope[1]))
        assert line["ratio_bound"] == (ratio.bound if ratio.value is not None else "")
        assert line["no_ratio_because"] == (explain_no_ratio(ratio) or "")
    pairs.append(("tput_range_low", cell.tput_range and cell.tput_range.low))
    pairs.append(("tput_range_high", cell.tput_range and cell.tput_range.high))
    for name, figure in pairs:
        value = None if isinstance(figure, Span) else figure
        assert number(name) == (None if value is None else pytest.approx(value, rel=CLOSE)), name


def check_targets(page: Any, index: int, comparison: Comparison, targets: list[float]) -> None:
    """Types the targets into the address, exports the table, and holds every number against Python's."""
    page.evaluate(f"location.hash = 'c={index}&t={','.join(map(repr, targets))}'")
    page.wait_for_function(
        f"document.querySelector('[name=target-{len(targets) - 1}]')?.value === '{targets[-1]!r}'"
        f" && !document.querySelector('section[data-index=\"{index}\"]').hidden"
    )
    # Chromium stops a page that saves dozens of files, so the text is taken before it becomes one.
    text = page.evaluate(
        "async () => { let blob; const make = URL.createObjectURL, click = HTMLAnchorElement.prototype.click;"
        " URL.createObjectURL = (made) => make(blob = made); HTMLAnchorElement.prototype.click = () => {};"
        " document.querySelector('[name=save-table]').click();"
        " URL.createObjectURL = make; HTMLAnchorElement.prototype.click = click; return blob.text(); }"
    )
    lines = list(csv.DictReader(io.StringIO(text)))
    other = compare(
        comparison.baseline,
        comparison.others,
        Settings(targets_tps=tuple(targets), economics=comparison.settings.economics),
    )
    expected = [
        (row.target_tps, curve.label, cell, ratio)
        for row in other.rows
        for curve, cell, ratio in zip(other.curves, row.cells, (None, *row.ratios), strict=True)
    ]
    assert len(lines) == len(expected)
    for line, (target, label, cell, ratio) in zip(lines, expected, strict=True):
        assert (float(line["target_tps"]), line["curve"]) == (target, label)
        check_line(line, cell, ratio)


def some_targets(comparison: Comparison, noise: random.Random) -> list[float]:
    """Knots, places between them, and places below and above every front."""
    knots = [knot.x for curve in comparison.curves for knot in curve.front]
    inside = [noise.uniform(min(knots), max(knots)) for _ in range(6)]
    return [*inside, noise.choice(knots), noise.choice(knots), min(knots) / 2, max(knots) * 1.5]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_what_is_typed_reads_as_in_python(open_page: OpenPage, source: Path) -> None:
    comparisons = comparisons_of(source)
    page = open_page(comparisons)
    noise = random.Random(2)
    for index, comparison in enumerate(comparisons):
        check_targets(page, index, comparison, some_targets(comparison, noise))


def test_random_curves_read_as_in_python(open_page: OpenPage) -> None:
    noise = random.Random(4)
    comparisons = []
    for _ in range(25):
        comparisons += compare_points(point_set(*random_points(noise)), Question()).comparisons
    page = open_page(comparisons)
    for index, comparison in enumerate(comparisons):
        check_targets(page, index, comparison, some_targets(comparison, noise))


def page_texts(page: Any, table: str = "matched") -> tuple[list[list[str]], list[str]]:
    rows = page.locator(f"table.{table} tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.children].map(cell =>"
        " [...cell.childNodes].map(node => node.textContent).join('\\n')))"
    )
    words = page.locator("ul.sentences li").all_text_contents()
    return rows, words


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_table_and_sentences_are_pythons_word_for_word(open_page: OpenPage, source: Path) -> None:
    comparisons = comparisons_of(source)
    page = open_page(comparisons)
    for index, comparison in enumerate(comparisons):
        page.evaluate(f"location.hash = 'c={index}&labels=1'")
        page.wait_for_function(f"!document.querySelector('section[data-index=\"{index}\"]').hidden")
        document = write_document(comparison)
        rows, words = page_texts(page)
        own = [list(row) for row in document.table("matched").rows]
        assert [[cell.replace("\n", " ") for cell in row[1:]] for row in rows] == [
            [cell.replace("\n", " ") for cell in row[1:]] for row in own
        ]
        assert words == list(document.items("words"))
        assert page.locator("ul.notes + p").text_content() == document.table("matched").caption


def test_wide_gaps_and_repeats_read_the_same_in_words(open_page: OpenPage) -> None:
    noise = random.Random(5)
    comparisons = []
    for _ in range(25):
        comparisons += compare_points(point_set(*random_points(noise)), Question()).comparisons
    page = open_page(comparisons)
    states, told = set(), ""
    for index, comparison in enumerate(comparisons):
        page.evaluate(f"location.hash = 'c={index}&labels=1'")
        page.wait_for_function(f"!document.querySelector('section[data-index=\"{index}\"]').hidden")
        document = write_document(comparison)
        rows, words = page_texts(page)
        assert [[cell.replace("\n", " ") for cell in row[1:]] for row in rows] == [
            [cell.replace("\n", " ") for cell in row[1:]] for row in document.table("matched").rows
        ]
        assert words == list(document.items("words"))
        told += " ".join(words)
        states |= {
            (explain_no_ratio(ratio) or "")[:5] or None for row in comparison.rows for ratio in row.ratios
        }
    assert {"withh", "not r", None} <= states
    assert {"less energy", "more energy", " less to ", "at most "} <= {
        text for text in ("less energy", "more energy", " less to ", "at most ") if text in told
    }


def test_intervals_of_percentiles_acceptance_and_joules_read_the_same(open_page: OpenPage) -> None:
    points = [
        replace(
            point,
            ttft_p50_low_s=2.75 / point.interactivity_tps,
            ttft_p50_high_s=3.5 / point.interactivity_tps,
            ttft_p99_low_s=5.5 / point.interactivity_tps,
            e2el_p50_low_s=1000 / point.interactivity_tps,
            e2el_p50_high_s=1100 / point.interactivity_tps,
            interactivity_p99_tps=point.interactivity_tps / 2,
            interactivity_p99_high_tps=point.interactivity_tps / 1.5,
            acceptance_rel_se=0.01,
            joules_per_token_rel_se=0.02,
            power_rel_se=0.005,
            se_df=9,
        )
        for point in recorded(hardware="gb200")
    ]
    (comparison,) = compare_points(point_set(*points), Question(targets_tps=(20, 22, 40))).comparisons
    page = open_page([comparison])
    rows = [*page_texts(page)[0], *page_texts(page, "more")[0]]
    own = {(row[0], row[1]): row[2:] for table in ("matched", "metrics") for row in named(comparison, table)}
    read = {
        key: texts
        for key, texts in own.items()
        if any(sign in text for text in texts for sign in ("(", "≥", "≤")) and key[0] != "tok/s/GPU"
    }
    told = {
        (name, row[1]): tuple(text.replace("\n", " ") for text in row[2:]) for name, row in labelled(rows)
    }
    for key in (("median TTFT at the knots, s", "Off"), ("acceptance length at the knots", "MTP")):
        assert key in read
    for key in read.keys() & told.keys():
        assert told[key] == read[key]
    assert {"TTFT s, p99", "E2EL s, median", "tok/s/user, p99"} <= {
        name for name, _ in read.keys() & told.keys()
    }
    page.locator(".live svg.chart .point.c1").first.click()
    whole = page.locator(".entire").inner_text()
    first = comparison.others[0].measured[0].mean
    for name, unit in (("ttft_p50_s", " s median"), ("ttft_p99_s", " s p99"), ("e2el_p50_s", " s median")):
        assert metric(name).text_of(first) + unit in whole
    for name in ("acceptance_length", "metered_joules_per_token", "power_w_per_gpu", "interactivity_p99_tps"):
        assert metric(name).text_of(first) in whole
    assert "≥ " in metric("ttft_p99_s").text_of(first)


def named(comparison: Comparison, table: str) -> Iterator[tuple[str, ...]]:
    """The rows of one of Python's tables, each with its section's name."""
    name = ""
    for row in write_document(comparison).table(table).rows:
        name = row[0] or name
        yield (name, *(cell.replace("\n", " ") for cell in row[1:]))


def labelled(rows: list[list[str]]) -> Iterator[tuple[str, list[str]]]:
    name = ""
    for row in rows:
        name = row[0] or name
        yield name, row


def test_a_tie_reads_the_same_in_words(open_page: OpenPage) -> None:
    line = ((20.0, 1000.0), (40.0, 500.0))
    nearly = tuple((x, y * 1.0002) for x, y in line)
    comparisons = []
    for other in (line, nearly):
        points = point_set(*make_points("off", *line), *make_points("mtp", *other))
        comparisons += compare_points(points, Question()).comparisons
    page = open_page(comparisons)
    for index, comparison in enumerate(comparisons):
        page.evaluate(f"location.hash = 'c={index}'")
        page.wait_for_function(f"!document.querySelector('section[data-index=\"{index}\"]').hidden")
        words = page_texts(page)[1]
        assert words == list(write_document(comparison).items("words"))
        assert "equal, 1.00 (" in words[0]
        assert "tok/s/user Off and MTP are equal" in words[-1].replace("MTP and Off", "Off and MTP")


def test_bands_and_intervals_are_pythons(open_page: OpenPage) -> None:
    noise = random.Random(6)
    points = [
        point
        for repeat in range(4)
        for arm, gain in (("off", 1.0), ("mtp", 1.4))
        for point in make_points(
            arm,
            *((x * noise.gauss(1, 0.01), 9000 / x * gain * noise.gauss(1, 0.02)) for x in (10.0, 20.0, 40.0)),
            repeat=repeat,
        )
    ]
    (comparison,) = compare_points(point_set(*points), Question(targets_tps=(20.0, 30.0))).comparisons
    page = open_page([comparison])
    own = [list(row) for row in write_document(comparison).table("matched").rows]
    assert [[c.replace("\n", " ") for c in row[1:]] for row in page_texts(page)[0]] == [
        [c.replace("\n", " ") for c in row[1:]] for row in own
    ]
    assert page.locator(".band").count() == 2
    page.select_option("[name=y]", "gain")
    assert page.locator(".band").count() == 1
    page.uncheck("[name=bands]")
    assert page.locator(".band").count() == 0
    page.fill("[name=target-0]", "25")
    (first, _) = page_texts(page)[0][0][2].split("\n")
    assert "≈ (" in first
    (reader, *_) = read_curves([comparison.others[0]], comparison.settings)
    assert reader.is_sure
    low, high = (
        float(text.replace(",", "")) for text in first[first.index("(") + 1 : first.index(")")].split("–")
    )
    exact = (
        compare(comparison.baseline, comparison.others, Settings(targets_tps=(25.0,)))
        .rows[0]
        .cells[1]
        .interval
    )
    assert exact is not None
    assert (low, high) == pytest.approx((exact.low, exact.high), rel=0.01)


def test_the_front_of_the_page_is_pythons(open_page: OpenPage) -> None:
    curve = make_curve("mtp", (10, 800), (15, 100), (20, 700), (30, 300))
    base = make_curve("off", (10, 400), (30, 100))
    page = open_page([compare(base, [curve])])
    data = json.loads(page.locator("#data").text_content() or "")
    assert data["comparisons"][0]["curves"][1]["front"] == [0, 2, 3]
    assert page.locator("section:not([hidden]) .live svg.chart .point.c1.below").count() == 1
