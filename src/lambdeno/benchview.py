"""What ``bench`` has measured, for a person: a table, and the start as one bar."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lambdeno.bench import Figures, Part

__all__ = ["show"]

BAR = 60  # characters
STYLES = ("blue", "cyan", "green", "yellow")
LETTERS = "sDbi"  # of the parts, where there are no colours


def show(figures: Figures, console: Console) -> None:
    """Print it."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("", "median", "min", "p99", "max"):
        table.add_column(title, justify="left" if not title else "right")
    rows = {"start, ms": figures.start, "first invocation, ms": figures.first, "warm, ms": figures.warm}
    for title, values in rows.items():
        if values:
            table.add_row(title, *(f"{value:.2f}" for value in _summary(values)))
    console.print(table)
    console.print(
        f"memory {figures.memory} MB, function.zip {figures.function_size / 1000:.0f} KB;"
        f" {figures.runtime} in {figures.sandbox}, {len(figures.start)} environments,"
        f" load {figures.load:.2f}",
        soft_wrap=True,
    )
    if figures.parts:
        console.print("\nwhere the start goes, ms", style="dim")
        console.print(bar(figures.parts, is_plain=console.no_color or not console.is_terminal))
        for number, part in enumerate(figures.parts):
            line = Text(f"{LETTERS[number]} ", style=STYLES[number])
            console.print(line.append(f"{part.milliseconds:7.2f}  {part.name}", style="default"))
    else:
        console.print(
            "The parts of the start cannot be told: they need a bundle, and its code cache made here"
        )


def bar(parts: Sequence[Part], *, is_plain: bool) -> Text:
    """Each part as long as it takes, and no part that takes time without a place."""
    whole = sum(part.milliseconds for part in parts) or 1.0
    text = Text()
    for part, style, letter in zip(parts, STYLES, LETTERS, strict=True):
        width = max(round(part.milliseconds / whole * BAR), int(part.milliseconds >= whole / 1000))
        text.append((letter if is_plain else "█") * width, style=style)
    return text


def _summary(values: Sequence[float]) -> tuple[float, float, float, float]:
    ordered = sorted(values)
    return statistics.median(ordered), ordered[0], ordered[(len(ordered) - 1) * 99 // 100], ordered[-1]
