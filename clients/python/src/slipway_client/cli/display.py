"""The steps of a download or a load as they happen: with a bar on a terminal, as plain lines elsewhere."""

import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from slipway_client.cli import format as fmt
from slipway_client.cli.steps import Step

LABEL_WIDTH = 22
BAR_WIDTH = 28
SPARE_COLUMNS = 3
"""Kept free at the right, so that the `^C` of a terminal does not begin a line that the display knows nothing of."""
FRAMES_PER_SECOND = 10
BRIEF = 1.0
"""Seconds; a wait that was shorter is not told afterwards."""


class Display(Protocol):
    """Shows steps, between entering and leaving it."""

    def show(self, step: Step) -> None:
        """The step under way, and how far it is."""
        ...

    def note(self, text: str) -> None:
        """Something to know about it."""
        ...

    def line(self, text: Text) -> None:
        """A line that stays, as it is."""
        ...

    def finish(self) -> None:
        """The last step shown came to its end."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def display(console: Console) -> Display:
    """The display that suits where the output goes."""
    return BarDisplay(console) if console.is_terminal else LineDisplay(console)


class LineDisplay:
    """One line for each step, and for each mark within one."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: tuple[str, str] | None = None

    def show(self, step: Step) -> None:
        """Prints a line when step or mark are new."""
        if (step.key, step.mark) == self._last:
            return
        self._last = (step.key, step.mark)
        detail = step.mark or step.result
        self._console.print(f"{step.doing}: {detail}" if detail else step.doing)

    def note(self, text: str) -> None:
        """Prints the text."""
        self._console.print(text)

    def line(self, text: Text) -> None:
        """Prints the text."""
        self._console.print(text)

    def finish(self) -> None:
        """Nothing: the command says how it ended."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class BarDisplay:
    """A line for each step that is over, and below them the one under way with a bar."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._step: Step | None = None
        self._began = 0.0
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(
            console=console, get_renderable=self.render, refresh_per_second=FRAMES_PER_SECOND, transient=True
        )

    def show(self, step: Step) -> None:
        """Shows how far it is; keeps a line of the step before."""
        if self._step is None or step.key != self._step.key:
            self._keep(is_done=not step.is_setback)
            self._began = self._clock()
        self._step = step

    def note(self, text: str) -> None:
        """Prints the text above the bar."""
        self._console.print(Text.assemble(("! ", "yellow"), text))

    def line(self, text: Text) -> None:
        """Prints the text above the bar."""
        self._console.print(text)

    def finish(self) -> None:
        """Keeps a line of the last step."""
        self._keep(is_done=True)
        self._step = None

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def render(self) -> RenderableType:
        """The step under way."""
        if self._step is None:
            return Text()
        step = self._step
        label_width = max(LABEL_WIDTH, len(step.doing))
        room = self._console.width - SPARE_COLUMNS - label_width - len("x ") - len(" ")
        cells: list[tuple[RenderableType, int]] = [
            (self._spinner, 1),
            (Text(step.doing, style="yellow" if step.is_setback else "bold"), label_width),
        ]
        if step.fraction is not None:
            width = min(BAR_WIDTH, room // 3)
            cells.append((_bar(step.fraction, width), width))
            room -= width + 1
        took = fmt.seconds(self._clock() - self._began)
        cells.append((Text(step.numbers or step.mark or took, style="" if step.numbers else "dim"), max(room, 1)))
        return _row(cells)

    def _keep(self, *, is_done: bool) -> None:
        step = self._step
        if step is None or not step.is_kept:
            return
        took = self._clock() - self._began
        if step.is_waiting and took < BRIEF:
            return
        if step.is_setback:
            sign, label, details = "•", step.doing, step.mark or fmt.seconds(took)
        elif is_done:
            sign, label = "✓", step.done
            details = " · ".join(filter(None, (step.result, fmt.seconds(took))))
        else:
            sign, label, details = "•", step.doing, fmt.seconds(took)
        self._console.print(
            Text.assemble((sign, "green" if sign == "✓" else "yellow"), f" {label:<{LABEL_WIDTH}} ", (details, "dim"))
        )


def _bar(fraction: float, width: int) -> ProgressBar:
    return ProgressBar(
        total=1.0, completed=min(fraction, 1.0), width=width, complete_style="cyan", finished_style="cyan"
    )


def _row(cells: Iterable[tuple[RenderableType, int]]) -> Table:
    """Cells side by side, each cut to its width."""
    row = Table.grid(padding=(0, 1, 0, 0))
    renderables = []
    for renderable, width in cells:
        row.add_column(width=width, no_wrap=True, overflow="ellipsis")
        renderables.append(renderable)
    row.add_row(*renderables)
    return row
