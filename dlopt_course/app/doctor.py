"""What this machine has, against what the course needs; what will run live and what is shown as recorded."""

import os
import platform
import shutil
import sys
import sysconfig
import tomllib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dlopt_course.app.lessons import companion, find_lessons, root

OK, WARN, FAIL = "ok", "warn", "fail"
MARKS = {OK: "[green]✓[/]", WARN: "[yellow]![/]", FAIL: "[red]✗[/]"}
CPUINFO = Path("/proc/cpuinfo")
COMPILERS = ("g++", "clang++", "cl")  # what torch.compile calls on Linux, macOS and Windows
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NEEDED_GIB = 1.0  # data sets that are fetched, executed lessons and the site, with room to spare


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    found: str
    expected: str
    status: str  # "ok"; "warn": the course runs, with less; "fail": it does not
    advice: str = ""  # what to do, empty where there is nothing to do


@dataclass(frozen=True)
class Consequence:
    """What the findings mean for one part of the course."""

    part: str
    live: bool
    how: str


def examine(folder: Path | str = ".") -> list[Finding]:
    """Looks at everything that the course needs, from `folder` on; raises nothing, whatever is missing."""
    torch, loads = load_torch()
    resolved, valid = load_settings(Path(folder))
    packages, others = package_findings()
    gpu = gpu_finding(torch, resolved.device if resolved else "cpu")
    bf16 = bf16_finding(CPUINFO.read_text() if CPUINFO.is_file() else None)
    machine = [cores_finding(), blas_finding(), gpu, bf16, compiler_finding(), disk_finding(Path(folder).resolve())]
    browser = [browser_finding()] if root() else []
    return [python_finding(), *packages, others, loads, *machine, lessons_finding(), valid, *browser]


def exit_status(findings: list[Finding]) -> int:
    """0 if everything that is needed is there, else 1."""
    return int(any(f.status == FAIL for f in findings))


def render(findings: list[Finding], console: Console) -> None:
    """Prints the findings, what they mean, and what to do; commands are on lines of their own, to be copied."""
    table = Table("", "what", "found", "expected", box=None, pad_edge=False)
    for f in findings:
        table.add_row(MARKS[f.status], escape(f.name), escape(f.found), escape(f.expected))
    console.print(table)
    console.print()
    for c in consequences(findings):
        console.print(f"{'live    ' if c.live else 'recorded'}  {escape(c.part)}: {escape(c.how)}", soft_wrap=True)
    for f in (f for f in findings if f.advice):
        console.print(f"\n{MARKS[f.status]} [bold]{escape(f.name)}[/]: {escape(f.advice)}", soft_wrap=True)


def consequences(findings: list[Finding]) -> list[Consequence]:
    """What will run live here, and what is shown as it was recorded on another machine."""
    by_name = {f.name: f for f in findings}
    if failed := [f.name for f in findings if f.status == FAIL]:
        return [Consequence("lessons", False, f"none runs before this is put right: {', '.join(failed)}")]
    decided = {  # part: the finding that decides it, and what that part needs
        "measurements on a GPU": ("GPU", "a CUDA GPU that the settings do not turn off"),
        "speed of bf16 on the CPU": ("CPU bf16", "a CPU with bf16 instructions, others emulate them"),
        "torch.compile": ("C++ compiler", "a C++ compiler and Python's headers"),
    }
    rows = [Consequence("lessons", True, by_name["settings"].found)]
    for part, (name, need) in decided.items():
        live, found = by_name[name].status == OK, by_name[name].found
        rows.append(Consequence(part, live, found if live else f"needs {need}; found: {found}"))
    return rows


def python_finding() -> Finding:
    """This Python against the range that the package supports."""
    supported, version = requirements()[0], platform.python_version()
    fits = SpecifierSet(supported).contains(version, prereleases=True)
    advice = f"Install Python {supported} and make the environment again with it."
    return Finding("Python", version, supported, OK if fits else FAIL, "" if fits else advice)


def requirements() -> tuple[str, list[Requirement]]:
    """The Python versions and the packages that the course itself requires, extras left out."""
    if checkout := root():
        project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        python, needed = project["requires-python"], project["dependencies"]
    else:
        found = metadata.metadata("dlopt_course")
        python, needed = found["Requires-Python"], found.get_all("Requires-Dist") or []
    parsed = [Requirement(r) for r in needed]
    return python, [r for r in parsed if r.marker is None or r.marker.evaluate({"extra": ""})]


def tested_versions() -> dict[str, str]:
    """Package: the version that was tested, from constraints.txt; empty if that is missing."""
    file = companion("constraints.txt")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    pins = (line.split("#")[0].split(";")[0].split("==") for line in lines)
    return {canonicalize_name(pin[0].strip()): pin[1].strip() for pin in pins if len(pin) == 2}


def installed_version(name: str) -> str | None:
    """The installed version of a package, None if it is missing."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def package_findings() -> tuple[list[Finding], Finding]:
    """One finding for each package the course requires, and one for all others that were tested with it."""
    tested, needed = tested_versions(), requirements()[1]
    direct = {canonicalize_name(r.name) for r in needed}
    found = [package_finding(r, installed_version(r.name), tested.get(canonicalize_name(r.name))) for r in needed]
    return found, others_finding({name: v for name, v in tested.items() if name not in direct})


def package_finding(required: Requirement, installed: str | None, tested: str | None) -> Finding:
    """A required package: missing or out of range fails, another version than the tested one is told."""
    expected = f"{tested} tested" if tested else str(required.specifier) or "any"
    fix = install_command(f"{required.name}=={tested}" if tested else str(required))
    if installed is None:
        return Finding(required.name, "missing", expected, FAIL, fix)
    if not required.specifier.contains(installed, prereleases=True):
        return Finding(required.name, installed, f"{required.specifier}", FAIL, fix)
    if tested and not same_version(installed, tested):
        return Finding(required.name, installed, expected, WARN, f"If a claim fails, take the tested version: {fix}")
    return Finding(required.name, installed, expected, OK)


def same_version(installed: str, tested: str) -> bool:
    """Whether a version is the tested one; 2.13.0+cpu is 2.13.0."""
    return SpecifierSet(f"=={tested}").contains(installed, prereleases=True)


def others_finding(tested: dict[str, str]) -> Finding:
    """How many of the packages that came along differ from what was tested; those not installed do not count."""
    present = {name: v for name in tested if (v := installed_version(name))}
    differ = [f"{name} {v}" for name, v in present.items() if not same_version(v, tested[name])]
    few = ", ".join(differ[:3]) + (", …" if len(differ) > 3 else "")
    found = f"{len(differ)} of {len(present)} differ: {few}" if differ else f"{len(present)}, none differs"
    return Finding("other packages", found, "as tested", WARN if differ else OK)


def install_command(what: str, *options: str) -> str:
    """The command that installs one requirement into this very environment."""
    quoted = f'"{what}"' if set(what) & set("<>~!; ") else what
    return " ".join([sys.executable, "-m pip install", *options, quoted])


def load_torch() -> tuple[object | None, Finding]:
    """PyTorch, if it can be loaded, with a finding that says so."""
    try:
        import torch

        return torch, Finding("PyTorch", f"loads, {torch.get_num_threads()} threads", "loads", OK)
    except Exception as e:  # a broken library fails in many ways, and each is to be reported
        tested = tested_versions().get("torch")
        fix = install_command(f"torch=={tested}" if tested else "torch", "--force-reinstall")
        return None, Finding("PyTorch", f"does not load: {e}", "loads", FAIL, fix)


def cores_finding() -> Finding:
    """The machine's cores, and how many of them this process may use."""
    total = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total
    found = f"{total}" if usable == total else f"{total}, of which this process may use {usable}"
    return Finding("cores", found, "2 for the stated times", OK if usable > 1 else WARN)


def blas_finding() -> Finding:
    """The library behind NumPy's matrix products, and its threads."""
    try:
        import numpy  # noqa: F401  (loads the library)
        from threadpoolctl import threadpool_info

        pools = [p for p in threadpool_info() if p["user_api"] == "blas"]
    except Exception as e:  # as above
        return Finding("BLAS", f"unknown: {e}", "threads as cores", WARN)
    found = dict.fromkeys(f"{p['internal_api']} {p['version']}, {p['num_threads']} threads" for p in pools)
    return Finding("BLAS", "; ".join(found) or "unknown", "threads as cores", OK if found else WARN)


def gpu_finding(torch, device: str) -> Finding:
    """The GPUs that PyTorch can use, `device` being what the settings come to."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an old driver is one; the finding says enough
        devices = list(gpus(torch)) if torch else []
    expected, found = "optional, CUDA", "; ".join(devices)
    if devices:
        return Finding(
            "GPU", found if device == "cuda" else f"{found}; device = cpu", expected, OK if device == "cuda" else WARN
        )
    unseen = torch is not None and shutil.which("nvidia-smi") is not None
    why = f"PyTorch {torch.__version__} does not see this machine's GPU: see pytorch.org/get-started" if unseen else ""
    return Finding("GPU", "none", expected, WARN, why)


def gpus(torch) -> Iterator[str]:
    """Name and memory of each CUDA GPU."""
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        device = torch.cuda.get_device_properties(i)
        yield f"{device.name}, {device.total_memory / 2**30:.0f} GiB"


def bf16_finding(cpuinfo: str | None) -> Finding:
    """Whether the CPU has instructions for bf16, from the flags in /proc/cpuinfo."""
    if cpuinfo is None:
        return Finding("CPU bf16", f"unknown on {platform.system()}", "optional", WARN)
    lines = [line for line in cpuinfo.splitlines() if line.split(":")[0].strip() in ("flags", "Features")]
    found = sorted({"amx_bf16", "avx512_bf16", "bf16", "svebf16"} & set(" ".join(lines).split()))
    return Finding("CPU bf16", ", ".join(found) or "none", "optional", OK if found else WARN)


def compiler_finding() -> Finding:
    """The C++ compiler and the header that torch.compile needs on the CPU."""
    candidates = (os.environ.get("CXX", ""), *COMPILERS)
    found = next((path for name in candidates if name and (path := shutil.which(name))), None)
    expected = "optional, with Python.h"
    if found is None:
        return Finding("C++ compiler", "none", expected, WARN, "For torch.compile, install g++ or clang++.")
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        advice = "For torch.compile, install Python's headers (python3-dev or python3-devel)."
        return Finding("C++ compiler", f"{found}, no Python.h", expected, WARN, advice)
    return Finding("C++ compiler", found, expected, OK)


def disk_finding(folder: Path) -> Finding:
    """Room on the disk of the working folder."""
    existing = next(f for f in (folder, *folder.parents) if f.exists())
    free = shutil.disk_usage(existing).free / 2**30
    advice = "" if free >= NEEDED_GIB else f"Make room on the disk of {existing}."
    return Finding("free disk", f"{free:.1f} GiB", f"{NEEDED_GIB:g} GiB", WARN if advice else OK, advice)


def lessons_finding() -> Finding:
    """Whether the lessons came along."""
    try:
        lessons = find_lessons()
    except (OSError, ValueError) as e:
        return Finding("lessons", "none", "the course's notebooks", FAIL, str(e))
    return Finding("lessons", f"{len(lessons)} in {lessons[0].parent}", "the course's notebooks", OK)


def load_settings(folder: Path) -> tuple[object | None, Finding]:
    """The settings as a lesson in `folder` would see them; a bad one fails with its own message."""
    expected = "known keys, possible values"
    try:
        from dlopt_course.core import settings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            s = settings(folder)
    except ValueError as e:
        return None, Finding("settings", "not valid", expected, FAIL, str(e))
    except Exception as e:  # they are resolved with PyTorch's help, which may be broken
        return None, Finding("settings", f"cannot be read: {e}", expected, FAIL, "Put right the packages above first.")
    found = f"{s.device}, {s.dtype}, {s.workers} at a time, seed {s.seed}, quick {'yes' if s.quick else 'no'}"
    return s, Finding("settings", f"{found}, data in {s.data_folder}", expected, OK)


def find_browser() -> str | None:
    """The path of the browser in which the site is tested, None where there is none."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def browser_finding() -> Finding:
    """The browser in which the site is tested; learners need none."""
    found = find_browser()
    return Finding("browser", found or "none", "for the site's tests", OK if found else WARN)
