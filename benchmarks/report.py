"""Figures of paired rounds: medians, ratios within a round, tables in plain text, and all of it as JSON."""

import json
import math
import os
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["RESULTS", "Figures", "Journal", "Target", "percentile", "table"]

RESULTS = Path(__file__).parent / "results"


def percentile(values: Iterable[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else float("nan")


@dataclass(slots=True)
class Figures:
    """What the servers did under one load: by server, one mapping of figures a round."""

    load: str
    rounds: dict[str, list[dict[str, float]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, server: str, **figures: float) -> None:
        self.rounds[server].append(figures)

    def median(self, server: str, figure: str) -> float:
        values = [one[figure] for one in self.rounds.get(server, ()) if figure in one]
        return statistics.median(values) if values else float("nan")

    def ratio(self, server: str, other: str, figure: str) -> float:
        """The median over the rounds of ``server`` divided by ``other``: noise of the machine strikes both alike."""
        pairs = zip(self.rounds.get(server, ()), self.rounds.get(other, ()), strict=False)
        values = [one[figure] / two[figure] for one, two in pairs if one.get(figure) and two.get(figure)]
        return statistics.median(values) if values else float("nan")


@dataclass(frozen=True, slots=True)
class Target:
    """What an issue asks of a ratio or a figure; ``below`` for times and memory."""

    value: float
    below: bool = False
    unit: str = "x"

    def judge(self, reached: float) -> str:
        """The cell of a table: what was reached, what was asked, and whether that is met."""
        if math.isnan(reached):
            return f"-  (target {self})"
        met = reached <= self.value if self.below else reached >= self.value
        return f"{number(reached)}{self.unit} ({self}) {'ok' if met else 'MISSED'}"

    def __str__(self) -> str:
        return f"{'<=' if self.below else '>='} {self.value:g}{self.unit}"


def number(value: float) -> str:
    if math.isnan(value):
        return "-"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str | float]]) -> str:
    cells = [list(columns)] + [[cell if isinstance(cell, str) else number(cell) for cell in row] for row in rows]
    widths = [max(len(row[at]) for row in cells) for at in range(len(columns))]
    lines = [
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([title, *lines, ""])


@dataclass(slots=True)
class Journal:
    """Everything measured in one run; written again after each load, so that an interrupted run leaves its figures."""

    started: str = field(default_factory=lambda: time.strftime("%Y%m%d-%H%M%S"))
    sections: dict[str, list[Figures]] = field(default_factory=lambda: defaultdict(list))

    def figures(self, section: str, load: str) -> Figures:
        figures = Figures(load)
        self.sections[section].append(figures)
        return figures

    def save(self) -> Path:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{self.started}.json"
        machine = {
            "load": os.getloadavg(),
            "cpus": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
        }
        measured = {
            section: {figures.load: figures.rounds for figures in several} for section, several in self.sections.items()
        }
        path.write_text(json.dumps({"machine": machine, "sections": measured}, indent=1) + "\n")
        return path
