"""The doctor: each finding on machines of every kind, and nothing that is missing stops it."""

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement
from rich.console import Console

from dlopt_course.app import doctor
from dlopt_course.app.doctor import FAIL, OK, WARN, Finding, consequences, examine, exit_status, package_finding, render


@pytest.fixture(autouse=True)
def no_overrides(monkeypatch):
    "The tests see no setting of the shell that runs them."
    for key in ("SEED", "DEVICE", "DTYPE", "WORKERS", "DATA_FOLDER", "TIME_BUDGET", "QUICK"):
        monkeypatch.delenv(f"DLOPT_{key}", raising=False)


def printed(findings: list[Finding], width: int = 100) -> str:
    "What render prints where there is no terminal."
    console = Console(file=io.StringIO(), width=width)
    render(findings, console)
    return console.file.getvalue()


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    "Findings by their name."
    return {f.name: f for f in findings}


# this machine


def test_this_machine_has_what_is_needed():
    findings = examine()
    assert [f for f in findings if f.status == FAIL] == []
    assert exit_status(findings) == 0
    assert {f.status for f in findings} <= {OK, WARN}
    assert len(by_name(findings)) == len(findings)


def test_every_finding_is_printed_and_no_line_of_advice_is_broken():
    advice = "run this: " + "x" * 300
    findings = [*examine(), Finding("odd [thing]", "[red]", "b", WARN, advice)]
    text = printed(findings, width=200)
    assert all(f.name in text for f in findings)
    assert "[red]" in text
    assert advice in printed(findings, width=60)


# packages


@pytest.mark.parametrize(
    ("installed", "tested", "status"),
    [
        ("2.4.6", "2.4.6", OK),
        ("2.4.6+cpu", "2.4.6", OK),
        ("2.4.5", "2.4.6", WARN),
        ("2.5.0rc1", "2.4.6", WARN),
        ("2.4.6", None, OK),
        ("1.26", "2.4.6", FAIL),
        (None, "2.4.6", FAIL),
        (None, None, FAIL),
    ],
)
def test_a_package_is_held_against_its_range_and_the_tested_version(installed, tested, status):
    found = package_finding(Requirement("numpy>=2.0"), installed, tested)
    assert found.status == status
    assert bool(found.advice) == (status != OK)


def test_a_missing_package_comes_with_the_command_that_installs_it():
    found = package_finding(Requirement("numpy>=2.0"), None, "2.4.6")
    assert found.advice == f"{sys.executable} -m pip install numpy==2.4.6"
    found = package_finding(Requirement("numpy>=2.0"), None, None)
    assert found.advice == f'{sys.executable} -m pip install "numpy>=2.0"'


def test_only_the_packages_that_the_course_requires_are_listed():
    python, needed = doctor.requirements()
    names = {r.name for r in needed}
    assert python.startswith(">=3.")
    assert {"numpy", "torch", "typer", "jupyterlab"} <= names
    assert not names & {"pytest", "sphinx", "dlopt_course"}


def test_without_a_checkout_the_requirements_come_from_the_installed_metadata(monkeypatch):
    from_checkout = {r.name for r in doctor.requirements()[1]}
    monkeypatch.setattr(doctor, "root", lambda: None)
    assert {"numpy", "torch", "typer"} <= {r.name for r in doctor.requirements()[1]}
    assert not {r.name for r in doctor.requirements()[1]} & {"pytest", "sphinx"}
    assert from_checkout


def test_the_tested_versions_are_read_whatever_stands_beside_them(tmp_path, monkeypatch):
    file = tmp_path / "constraints.txt"
    monkeypatch.setattr(doctor, "companion", lambda name: tmp_path / name)
    assert doctor.tested_versions() == {}
    file.write_text("# tested\n\nNumPy==2.4.6  # why\narray_api_compat == 1.16.0 ; python_version > '3'\nfree>=1\n")
    assert doctor.tested_versions() == {"numpy": "2.4.6", "array-api-compat": "1.16.0"}


def test_other_packages_are_counted_and_what_is_not_installed_does_not_count(monkeypatch):
    present = {"a": "1.0", "b": "2.0", "c": "3.0"}
    monkeypatch.setattr(doctor, "installed_version", present.get)
    found = doctor.others_finding({"a": "1.0", "b": "2.1", "c": "3.1", "missing": "9"})
    assert (found.found, found.status) == ("2 of 3 differ: b 2.0, c 3.0", WARN)
    assert doctor.others_finding({"a": "1.0"}).status == OK


# a Python, a PyTorch, settings that do not work


def test_a_python_that_is_too_old_fails(monkeypatch):
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.10.4")
    found = doctor.python_finding()
    assert found.status == FAIL
    assert "Install Python >=3." in found.advice


def test_a_missing_torch_is_reported_not_raised(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    findings = examine()
    found = by_name(findings)
    assert found["PyTorch"].status == FAIL
    assert "-m pip install --force-reinstall torch" in found["PyTorch"].advice
    assert found["GPU"].status == WARN
    assert found["settings"].status == FAIL
    assert exit_status(findings) == 1
    assert "none runs before this is put right: PyTorch" in printed(findings)


@pytest.mark.parametrize(
    "error", [OSError("libc10.so: cannot open"), RuntimeError("odd"), AttributeError("half installed")]
)
def test_a_broken_torch_is_reported_not_raised(error, monkeypatch):
    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "torch":
                raise error

    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    torch, found = doctor.load_torch()
    assert torch is None
    assert found.status == FAIL
    assert str(error) in found.found


def test_a_bad_setting_fails_with_its_own_message(tmp_path, monkeypatch):
    monkeypatch.setenv("DLOPT_SEED", "minus one")
    found = by_name(examine(tmp_path))["settings"]
    assert found.status == FAIL
    assert found.advice == "environment variable DLOPT_SEED: seed must be a whole number, 0 or more, got 'minus one'"


def test_a_settings_file_that_cannot_be_parsed_fails(tmp_path):
    (tmp_path / "settings.ini").write_text("[course]\nseed = 1\nseed = 2\n")
    resolved, found = doctor.load_settings(tmp_path)
    assert resolved is None
    assert found.status == FAIL
    assert "settings.ini" in found.advice


def test_good_settings_are_shown_as_they_were_resolved(tmp_path, monkeypatch):
    monkeypatch.setenv("DLOPT_DEVICE", "cpu")
    monkeypatch.setenv("DLOPT_WORKERS", "3")
    resolved, found = doctor.load_settings(tmp_path)
    assert resolved.workers == 3
    assert found.status == OK
    assert found.found.startswith("cpu, float64, 3 at a time, seed 0, quick no, data in ")


def test_missing_lessons_fail(monkeypatch):
    def nothing():
        raise FileNotFoundError("no lessons in here: install the package again")

    monkeypatch.setattr(doctor, "find_lessons", nothing)
    found = doctor.lessons_finding()
    assert (found.status, found.advice) == (FAIL, "no lessons in here: install the package again")


# machines of other kinds


@pytest.mark.parametrize(
    ("cpuinfo", "found", "status"),
    [
        ("processor : 0\nflags\t\t: fpu avx512_bf16 amx_bf16\nbugs : none\n", "amx_bf16, avx512_bf16", OK),
        ("processor : 0\nFeatures\t: fp asimd bf16 svebf16\n", "bf16, svebf16", OK),
        ("processor : 0\nflags\t\t: fpu avx2\nmodel name : bf16\n", "none", WARN),
        ("", "none", WARN),
        (None, "unknown", WARN),
    ],
)
def test_bf16_is_read_from_the_flags_alone(cpuinfo, found, status):
    made = doctor.bf16_finding(cpuinfo)
    assert made.found.startswith(found)
    assert made.status == status


def torch_with(*gpus) -> SimpleNamespace:
    "A PyTorch that sees these GPUs, (name, GiB) each."
    devices = [SimpleNamespace(name=name, total_memory=gib * 2**30) for name, gib in gpus]
    cuda = SimpleNamespace(is_available=lambda: bool(devices), device_count=lambda: len(devices))
    cuda.get_device_properties = devices.__getitem__
    return SimpleNamespace(cuda=cuda, __version__="2.13.0+cpu")


def test_gpus_are_named_with_their_memory():
    found = doctor.gpu_finding(torch_with(("A", 24), ("B", 80)), "cuda")
    assert (found.found, found.status) == ("A, 24 GiB; B, 80 GiB", OK)


def test_a_gpu_that_the_settings_turn_off_is_not_live():
    found = doctor.gpu_finding(torch_with(("A", 24)), "cpu")
    assert (found.found, found.status) == ("A, 24 GiB; device = cpu", WARN)


def test_a_gpu_that_pytorch_does_not_see_is_told(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert "does not see this machine's GPU" in doctor.gpu_finding(torch_with(), "cpu").advice
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    assert doctor.gpu_finding(torch_with(), "cpu").advice == ""


def test_a_compiler_needs_pythons_header_too(monkeypatch, tmp_path):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(doctor.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    assert doctor.compiler_finding().found == "none"
    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/usr/bin/{name}" if name == "clang++" else None)
    assert doctor.compiler_finding().found == "/usr/bin/clang++, no Python.h"
    (tmp_path / "Python.h").touch()
    assert doctor.compiler_finding().status == OK


def test_a_full_disk_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: SimpleNamespace(free=0.2 * 2**30))
    found = doctor.disk_finding(tmp_path / "not" / "yet")
    assert (found.found, found.status) == ("0.2 GiB", WARN)
    assert str(tmp_path) in found.advice


def test_cores_that_this_process_may_not_use_are_told(monkeypatch):
    monkeypatch.setattr(doctor.os, "cpu_count", lambda: 64)
    monkeypatch.setattr(doctor.os, "sched_getaffinity", lambda pid: {3}, raising=False)
    found = doctor.cores_finding()
    assert (found.found, found.status) == ("64, of which this process may use 1", WARN)


def test_without_threadpoolctl_the_blas_is_unknown(monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    found = doctor.blas_finding()
    assert found.status == WARN
    assert found.found.startswith("unknown")


def test_the_browser_concerns_a_checkout_only(monkeypatch):
    assert "browser" in by_name(examine())
    monkeypatch.setattr(doctor, "root", lambda: None)
    assert "browser" not in by_name(examine())


# what follows


def test_what_is_missing_is_shown_as_recorded():
    machine = {"settings": OK, "GPU": WARN, "CPU bf16": OK, "C++ compiler": WARN}
    findings = [Finding(name, f"found {name}", "", status) for name, status in machine.items()]
    live = {c.part: c.live for c in consequences(findings)}
    assert live == {
        "lessons": True,
        "measurements on a GPU": False,
        "speed of bf16 on the CPU": True,
        "torch.compile": False,
    }
    text = printed(findings)
    assert "recorded  measurements on a GPU: needs a CUDA GPU" in text
    assert "live      speed of bf16 on the CPU: found CPU bf16" in text


def test_nothing_runs_before_a_failure_is_put_right():
    findings = [Finding("numpy", "missing", "2.0", FAIL, "install it"), Finding("typer", "missing", "1", FAIL, "too")]
    (only,) = consequences(findings)
    assert not only.live
    assert only.how == "none runs before this is put right: numpy, typer"
    assert exit_status(findings) == 1


def test_warnings_alone_are_no_failure():
    assert exit_status([Finding("GPU", "none", "optional", WARN)]) == 0


def test_it_works_in_a_folder_that_does_not_exist():
    assert exit_status(examine(Path("not") / "yet")) == 0
