"""Live progress of several lessons: bars in a terminal, plain lines elsewhere."""

import threading
import time

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars


class Progress:
    "Shows for each lesson the cell it is at and its seconds."

    def __init__(self, console: Console, every: float = 5.0):
        self.console, self.every = console, every  # seconds between plain lines of one lesson
        self.tasks: dict[str, int] = {}
        self.began: dict[str, float] = {}
        self.said: dict[str, float] = {}
        self.lock = threading.Lock()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(24),
            TextColumn("{task.fields[cell]}"),
            TimeElapsedColumn(),
        )
        self.bars = Bars(*columns, console=console) if console.is_terminal else None
        if self.bars:
            self.bars.start()

    def at(self, lesson: str, cell: int, cells: int) -> None:
        "Lesson has begun its code cell number `cell` of `cells`."
        with self.lock:
            if self.bars:
                self._bar(lesson, cell, cells)
            else:
                self._line(lesson, cell, cells)

    def _bar(self, lesson: str, cell: int, cells: int) -> None:
        if lesson not in self.tasks:
            self.tasks[lesson] = self.bars.add_task(lesson, total=cells, cell="")
        self.bars.update(self.tasks[lesson], completed=cell, cell=f"cell {cell} of {cells}")

    def _line(self, lesson: str, cell: int, cells: int) -> None:
        now = time.perf_counter()
        start = self.began.setdefault(lesson, now)
        if cell in (1, cells) or now - self.said.get(lesson, 0) >= self.every:
            self.said[lesson] = now
            self.console.print(f"{lesson}: cell {cell} of {cells}, {now - start:.0f} s", highlight=False)

    def close(self) -> None:
        "Leave the bars as they are."
        if self.bars:
            self.bars.stop()
