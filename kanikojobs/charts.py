"""Charts as SVG from the server: geometry here, colours in CSS, values in a title per bar and in a table beside it.

No script draws them, so they work under the strict Content-Security-Policy and in a screen reader.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kanikojobs.overview import Point

WIDTH, HEIGHT = 720, 160  # in the units of the viewBox


@dataclass(frozen=True, slots=True)
class Bar:
    """One rectangle of a column: where it is, which series it belongs to."""

    x: float
    y: float
    width: float
    height: float
    series: str


@dataclass(frozen=True, slots=True)
class Column:
    """The bars of one point, and the text that a pointer over them shows."""

    bars: Sequence[Bar]
    x: float
    width: float
    title: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Stacked columns or lines, with the highest value for the scale."""

    columns: Sequence[Column]
    lines: Sequence[tuple[str, str]]
    highest: float
    width: int = WIDTH
    height: int = HEIGHT


def stacked(
    points: Sequence[Point], *, series: Mapping[str, Callable[[Point], float]], title: Callable[[Point], str]
) -> Chart:
    """Columns whose parts are the series, the first at the bottom."""
    highest = max((sum(value(point) for value in series.values()) for point in points), default=0) or 1
    step = WIDTH / max(1, len(points))
    columns = []
    for index, point in enumerate(points):
        bars, top = [], float(HEIGHT)
        for name, value in series.items():
            height = value(point) / highest * HEIGHT
            top -= height
            if height:
                bars.append(
                    Bar(
                        round(index * step + step * 0.1, 2), round(top, 2), round(step * 0.8, 2), round(height, 2), name
                    )
                )
        columns.append(Column(bars, round(index * step, 2), round(step, 2), title(point)))
    return Chart(columns=columns, lines=(), highest=highest)


def lines(
    points: Sequence[Point], *, series: Mapping[str, Callable[[Point], float | None]], title: Callable[[Point], str]
) -> Chart:
    """One line per series; where a point has no value the line has a gap."""
    values = [value(point) for value in series.values() for point in points]
    highest = max((value for value in values if value is not None), default=0) or 1
    step = WIDTH / max(1, len(points))
    paths = []
    for name, value in series.items():
        path, pen = [], "M"
        for index, point in enumerate(points):
            y = value(point)
            if y is None:
                pen = "M"
                continue
            x, height = (index + 0.5) * step, HEIGHT - y / highest * (HEIGHT - 4) - 2
            # A value without neighbours would be a line without length: a short one shows it.
            path.append(f"{pen}{x - step * 0.2:.2f} {height:.2f} L{x + step * 0.2:.2f} {height:.2f}")
            pen = "L"
        paths.append((name, " ".join(path)))
    columns = [Column((), round(index * step, 2), round(step, 2), title(point)) for index, point in enumerate(points)]
    return Chart(columns=columns, lines=paths, highest=highest)
