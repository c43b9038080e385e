"""The training program, with failures planted: what torchrun starts in tests/test_distributed.py.

The first option says what happens to worker 1 in its fourth step: one word for each time that torchrun starts it.
"""

import os
import signal
import sys
import time

import typer

from dlopt_course.app import distributed


def planted(*given):
    """A step, unless it is the fourth."""
    planted.steps += 1
    if planted.steps == 4 and os.environ["RANK"] == "1":
        fail(plan[int(os.environ["TORCHELASTIC_RESTART_COUNT"])])
    if "slow" in plan:
        time.sleep(0.5)
    return step(*given)


def fail(how):
    """What the word says."""
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "raise":
        raise RuntimeError("planted in worker 1")
    if how == "hang":
        time.sleep(600)


if __name__ == "__main__":
    plan, planted.steps, step = sys.argv.pop(1).split(","), 0, distributed.step
    distributed.step = planted
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(distributed.main)
    app()
