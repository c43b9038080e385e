"""The command `dlopt`: one function a command, each a thin shell over the module that does the work."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(
    help="Optimising and tuning deep learning: a course you read, run and import.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()

Lessons = Annotated[
    list[str] | None, typer.Argument(help="Lessons by number or name (1, losses, 01_losses). Default: all.")
]


def main() -> None:
    "Run the command; an error that the user can mend is one line, without a traceback."
    try:
        app()
    except (ValueError, OSError) as error:
        Console(stderr=True).print(f"[bold red]dlopt:[/] {error}", highlight=False)
        sys.exit(2)


def build_folder() -> Path:
    "Where results go: `_build` of the checkout, else of the current folder."
    from dlopt_course.app.lessons import root

    return (root() or Path.cwd()) / "_build"


@app.command()
def doctor() -> None:
    "Look at this machine: versions, cores, GPUs; say what will run live and what is shown as recorded."
    from dlopt_course.app.doctor import examine, exit_status, render

    findings = examine()
    render(findings, console)
    raise typer.Exit(exit_status(findings))


@app.command()
def run(lessons: Lessons = None) -> None:
    "Run lessons that have changed, write the ledger of claims, and end with a table of what was found."
    from dlopt_course.app.ledger import write_ledger
    from dlopt_course.app.lessons import find_lessons

    paths, out = find_lessons(lessons or []), build_folder() / "executed"
    outcomes = {}
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # being terminated ends like Ctrl-C
    try:
        run_and_report(paths, out, outcomes)
    except KeyboardInterrupt:
        console.print("Stopped. What was finished is kept; the same command goes on from there.")
        raise typer.Exit(130) from None
    finally:
        write_ledger(find_lessons(), out)
    show_outcomes([outcomes[p.stem] for p in paths])
    raise typer.Exit(1 if any(o.error for o in outcomes.values()) else 0)


def run_and_report(paths: list[Path], out: Path, outcomes: dict) -> None:
    "Run lessons, adding to `outcomes` by name; the error of one that fails is shown at once."
    from dlopt_course.app.progress import Progress
    from dlopt_course.app.run import run as run_lessons

    for outcome in run_lessons(paths, out, Progress(console)):
        outcomes[outcome.lesson] = outcome
        if outcome.error:
            console.rule(f"[red]{outcome.lesson} failed", style="red")
            console.out(outcome.error, highlight=False)


def show_outcomes(outcomes: list) -> None:
    "The table at the end of a run."
    from dlopt_course.app.ledger import counted

    table = Table("lesson", box=None, pad_edge=False)
    for header in ("seconds", "claims", "largest relative difference"):
        table.add_column(header, justify="right")
    table.add_column("")
    for o in outcomes:
        claims = sum(counted(c) for c in o.claims)
        table.add_row(o.lesson, f"{o.seconds:.1f}", str(claims), f"{o.max_rel:.1e}" if claims else "–", remark(o))
    console.print(table)


def remark(outcome) -> str:
    "What is worth saying about one lesson's run."
    from dlopt_course.core import settings

    if outcome.error:
        return "[red]failed"
    slow = f"[yellow]over its {settings().time_budget:g} s[/]" if outcome.seconds > settings().time_budget else ""
    return ", ".join(filter(None, (slow, "unchanged" if outcome.cached else "")))


@app.command()
def lab(
    folder: Annotated[Path, typer.Argument(help="Your folder of lessons; made if it is missing.")] = Path("my-course"),
) -> None:
    "Open your own copy of the lessons in JupyterLab, making it first."
    start(folder)
    raise typer.Exit(subprocess.call([sys.executable, "-m", "jupyter", "lab", "--notebook-dir", str(folder)]))


@app.command()
def site(
    serve: Annotated[bool, typer.Option(help="Show it at a local address until Ctrl-C.")] = False,
    port: Annotated[int, typer.Option(help="Port of that address; 0 takes a free one.")] = 0,
) -> None:
    "Build the documentation site into `_site/` from the lessons as they were run."
    from dlopt_course.app.lessons import root
    from dlopt_course.app.site import build_site
    from dlopt_course.app.site import serve as serve_site

    folder = build_site(root() or Path.cwd())
    console.print(
        f"The site is in {folder}. Open it with:\n    {sys.executable} -m webbrowser {folder / 'index.html'}",
        soft_wrap=True,
    )
    if serve:
        serve_site(folder, port)


@app.command()
def claims(
    lesson: Annotated[str | None, typer.Option(help="Only this lesson.")] = None,
    against: Annotated[str | None, typer.Option(help="Only references whose name contains this.")] = None,
    worst: Annotated[int | None, typer.Option(help="Only this many, largest relative difference first.", min=1)] = None,
    summary: Annotated[bool, typer.Option(help="A line for each lesson, as in the README.")] = False,
) -> None:
    "Show the ledger: what was compared with what, and how far apart it was."
    from dlopt_course.app import ledger

    rows = chosen(ledger.read_ledger(build_folder()), lesson, against, worst)
    if summary:
        print(*ledger.summary(rows), sep="\n")
        return
    console.print(ledger.table(rows))
    inner = sum(not ledger.counted(r) for r in rows)
    console.print(f"{len(rows) - inner} claims against other libraries and closed forms, {inner} internal")


def chosen(rows: list[dict], lesson: str | None, against: str | None, worst: int | None) -> list[dict]:
    "The rows that the options ask for."
    from dlopt_course.app.lessons import find_lessons

    if lesson:
        rows = [r for r in rows if r["lesson"] in [p.stem for p in find_lessons([lesson])]]
    if against:
        rows = [r for r in rows if against.lower() in r["against"].lower()]
    return sorted(rows, key=lambda r: -(r["max_rel"] or 0))[:worst] if worst else rows


@app.command()
def start(folder: Annotated[Path, typer.Argument(help="Your folder; made if it is missing.")]) -> None:
    "Copy the lessons into your own folder, without the solutions. What you changed there is never overwritten."
    from dlopt_course.app.start import start as copy_lessons

    console.print(copy_lessons(folder))


if __name__ == "__main__":
    main()
