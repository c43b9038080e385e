"""GPU recordings: the program that makes them, run on the CPU with tiny sizes; what they must hold; how they look."""

import copy
import json
import math
import re
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from benchmarks import cpu_limits, gpu, measure
from dlopt_course.app import recordings

pytestmark = pytest.mark.usefixtures("one_torch_thread")
CPU = torch.device("cpu")
QUICK = gpu.Setup(CPU, "CPU", True, 0.0, {})._replace(started=math.inf)  # never over


def command_line(*arguments):
    app = typer.Typer()
    app.command()(gpu.main)
    return CliRunner().invoke(app, arguments)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "The file of a quick run of everything."
    folder = tmp_path_factory.mktemp("recordings")
    result = command_line("--device", "cpu", "--quick", "--folder", str(folder))
    assert result.exit_code == 0, result.output
    (file,) = folder.iterdir()
    return file


@pytest.fixture
def recording(made):
    return json.loads(made.read_text(encoding="utf-8"))


def rows_of(recording, name):
    return {row["case"]: row for row in recordings.experiment(recording, name)["rows"]}


# What a run records


def test_a_run_records_every_experiment(made, recording):
    assert recording == recordings.load(made) == recordings.load_newest("gpu", made.parent)
    assert made.name == f"gpu-{recording['date']}-{gpu.re.sub('[^a-z0-9]+', '-', gpu.device_name('cpu').lower())}.json"
    assert [e["name"] for e in recording["experiments"]] == list(gpu.EXPERIMENTS)
    assert recording["command"] == "python -m benchmarks.gpu --device cpu --quick"
    assert (recording["device"]["type"], recording["quick"], recording["live"]) == ("cpu", True, False)
    assert recording["versions"]["torch"] == torch.__version__
    assert recording["seconds"] >= sum(e["seconds"] for e in recording["experiments"]) * 0.99
    for one in recording["experiments"]:
        assert not one["error"], one
        assert one["about"].startswith(one["about"][0].upper())
        for row in one["rows"]:
            assert not row["error"], row
            assert row["target"] == {}, "a quick run aims at nothing"
            assert row["samples"] or row["figures"].get("against")


def test_figures_follow_from_the_samples(recording):
    ceilings = rows_of(recording, "ceilings")
    copied, product = ceilings["copy, float32"], ceilings["matrix product, bfloat16, random numbers"]
    assert copied["figures"]["TB/s"] == pytest.approx(8 * 2**12 / np.median(copied["samples"]) / 1e12)
    assert product["figures"]["TFLOP/s"] == pytest.approx(2 * 32**3 / np.median(product["samples"]) / 1e12)
    assert product["figures"]["of dense peak"] == "unknown device"
    steps = rows_of(recording, "step")
    share = steps["compiled"]["figures"]["TFLOP/s"] / product["figures"]["TFLOP/s"]
    assert steps["compiled"]["figures"]["of measured product"] == pytest.approx(share)
    ratio = np.median(steps["eager"]["samples"]) / np.median(steps["compiled"]["samples"])
    assert steps["compiled"]["figures"]["speed-up"] == pytest.approx(ratio)
    kept, again = rows_of(recording, "checkpointing").values()
    longer = np.median(again["samples"]) / np.median(kept["samples"]) - 1
    assert again["figures"]["slower by"] == pytest.approx(longer)
    fused = rows_of(recording, "adamw")["torch, fused"]
    share = fused["figures"]["GB/s at 28 bytes"] / 1e3 / copied["figures"]["TB/s"]
    assert fused["figures"]["of copy"] == pytest.approx(share)


def test_the_experiments_have_their_cases(recording):
    found = {e["name"]: len(e["rows"]) for e in recording["experiments"]}
    expected = {"ceilings": 6, "timing": 4, "precision": 4, "adamw": 5, "copies": 6, "checkpointing": 2, "launch": 9}
    assert found == expected | {"step": 2, "functions": len(gpu.gpu_functions.FUNCTIONS)}
    assert set(gpu.SHORT) <= set(gpu.EXPERIMENTS)
    errors = {case: row["figures"]["relative error"] for case, row in rows_of(recording, "precision").items()}
    assert errors["float32"] < 1e-6 < errors["float16"] < errors["bfloat16"] < 1e-2


def test_functions_are_timed_in_three_forms(recording):
    rows = {row["case"]: row for row in recordings.experiment(recording, "functions")["rows"]}
    for function in gpu.gpu_functions.FUNCTIONS:
        row = rows[function.name]
        if "not installed" not in row["figures"]["against"]:
            assert row["figures"]["difference, float64"] <= 1e-8 <= 1e-3 >= row["figures"]["difference, float32"]
    row = rows["losses.mse"]
    assert list(row["others"]) == ["torch", "compiled"]
    assert row["figures"]["ours, 10⁹/s"] == pytest.approx(60 / np.median(row["samples"]) / 1e9)
    assert row["figures"]["compiled, 10⁹/s"] == pytest.approx(60 / np.median(row["others"]["compiled"]) / 1e9)


def test_recordings_of_the_package_are_of_whole_runs_on_a_gpu():
    for file in recordings.FOLDER.glob("*.json"):
        found = recordings.load(file)
        assert file.name == gpu.file_name(found)
        assert (found["device"]["type"], found["quick"], found["live"]) == ("cuda", False, False)
        assert {e["name"] for e in found["experiments"]} == set(gpu.EXPERIMENTS)
        assert found["seconds"] < 8 * 60


# Errors stay where they are


def broken(setup, rows):
    "Fails after its first row."
    rows.append(gpu.row_of("a", [1.0, 3.0], {"x": 2.0}))
    raise RuntimeError("out of luck\nand more")


def test_an_experiment_fails_alone(monkeypatch, tmp_path):
    monkeypatch.setitem(gpu.EXPERIMENTS, "timing", gpu.Experiment("Broken", broken))
    result = command_line("timing", "copies", "--device", "cpu", "--quick", "--folder", str(tmp_path))
    assert result.exit_code == 1
    assert "failed: timing" in result.output
    found = recordings.load_newest("gpu", tmp_path)
    assert found["command"] == "python -m benchmarks.gpu timing copies --device cpu --quick"
    first, second = found["experiments"]
    assert first["error"].startswith("RuntimeError: out of luck and more (test_gpu_recordings.py:")
    assert [row["case"] for row in first["rows"]] == ["a"]
    assert (len(second["rows"]), second["error"]) == (6, "")
    assert "It stopped early: RuntimeError: out of luck and more" in str(recordings.table(found, "timing"))


def test_what_is_done_is_saved_before_the_next_begins(monkeypatch, tmp_path):
    def interrupted(setup, rows):
        raise KeyboardInterrupt

    monkeypatch.setitem(gpu.EXPERIMENTS, "copies", gpu.Experiment("Interrupted", interrupted))
    command_line("timing", "copies", "--device", "cpu", "--quick", "--folder", str(tmp_path))
    found = recordings.load_newest("gpu", tmp_path)
    assert [e["name"] for e in found["experiments"]] == ["timing"]


def fails():
    raise ValueError("no")


@pytest.mark.parametrize(
    ("make", "figures"), [(fails, lambda t: {}), (lambda: fails, lambda t: {}), (lambda: abs, lambda t: {})]
)
def test_a_case_fails_alone(make, figures):
    row = gpu.measured(QUICK, "case", make, figures, {"figure": "x", "text": "1 or more", "least": 1})
    assert row["samples"] == row["quartiles"] == []
    assert row["error"].startswith(("ValueError: no (", "TypeError: abs"))
    assert not recordings.reached(row)


def test_after_the_time_nothing_is_begun():
    late = QUICK._replace(started=-math.inf)
    found = gpu.perform(late, "timing")
    assert found["rows"] == []
    assert found["error"].startswith("TimeoutError: not begun: 7.5 minutes were over")


def test_a_function_that_differs_fails_alone():
    function = gpu.gpu_functions.FUNCTIONS[0]
    wrong = function._replace(ours=lambda *given: [2 * x for x in function.ours(*given)])
    row = gpu.one_function(QUICK, wrong)
    assert row["error"].startswith("AssertionError: losses.mse")
    assert row["figures"] == {"against": function.against}


@pytest.mark.parametrize("arguments", ["--device tpu", "nothing --device cpu", "--device cuda"])
def test_bad_arguments(arguments, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command_line(*arguments.split()).exit_code == 2


# The dense peak


def test_an_unknown_device_has_no_share():
    for name in ("NVIDIA H100 NVL", "NVIDIA GeForce RTX 4090", "CPU"):
        found = gpu.of_peak(QUICK._replace(name=name), 1e12, 1.0, "bfloat16")
        assert found == {"of dense peak": "unknown device"}


def test_a_share_of_a_known_device():
    found = gpu.of_peak(QUICK._replace(name="NVIDIA H200"), 800e12, 1.0, "bfloat16")["of dense peak"]
    assert found == pytest.approx(800 / 989.5, rel=1e-3)


def test_more_than_the_peak_is_an_error_of_its_row():
    setup = QUICK._replace(name="NVIDIA H200")
    row = gpu.measured(setup, "too fast", lambda: lambda: 1, lambda t: gpu.of_peak(setup, 1e30, 1, "tf32"))
    assert row["error"].startswith("ValueError: seconds must be")


@pytest.mark.parametrize("name", gpu.CEILINGS)
def test_targets_are_of_devices_that_are_known(name):
    setup = gpu.Setup(torch.device("cuda"), name, False, 0.0, {})
    assert gpu.course.find_device(name).peaks["bfloat16"] > gpu.CEILINGS[name]["matmul"] * 1e12
    target = setup.target("TB/s", "3 TB/s", least=2.85)
    assert target == {"figure": "TB/s", "text": "3 TB/s", "least": 2.85}
    assert setup._replace(quick=True).target("TB/s", "3 TB/s", least=2.85) == {}


# Models and steps


def test_gpt2_has_its_parameters():
    with torch.device("meta"):
        model = gpu.Transformer(*gpu.GPT2[:5])
    assert sum(p.numel() for p in model.parameters()) == 50304 * 768 + 1024 * 768 + 12 * 7_087_872 + 2 * 768


def test_checkpointing_changes_no_number():
    losses, grads = [], []
    for again in (False, True):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model, batch = gpu.transformer(QUICK, gpu.TINY, checkpointing=again)
        loss = model(*batch)
        loss.backward()
        losses.append(loss.item())
        grads.append([p.grad for p in model.parameters()])
    assert losses[0] == losses[1] == pytest.approx(math.log(64), rel=0.05)
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_attention_looks_at_no_later_token():
    model, (x, target) = gpu.transformer(QUICK, gpu.TINY)
    other = x.clone()
    other[:, -1] = (x[:, -1] + 1) % 64
    outputs = []
    model.norm.register_forward_hook(lambda module, given, found: outputs.append(found))
    model(x, target)
    model(other, target)
    torch.testing.assert_close(outputs[0][:, :-1], outputs[1][:, :-1])
    assert not torch.equal(outputs[0][:, -1], outputs[1][:, -1])


def test_a_training_step_is_torchs():
    (model, batch), (twin, _) = (gpu.transformer(QUICK, gpu.TINY) for _ in range(2))
    twin.load_state_dict(model.state_dict())
    step = gpu.training_step(QUICK, model, list(model.parameters()), batch, None)
    optimizer = torch.optim.AdamW(twin.parameters(), lr=1e-4)
    for _ in range(2):
        step()
        optimizer.zero_grad()
        twin(*batch).backward()
        optimizer.step()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("setup", [None, QUICK], ids=["as written", "compiled"])
def test_our_adamw_is_torchs(setup):
    rng = torch.Generator().manual_seed(0)
    ours, theirs = ([torch.nn.Parameter(torch.ones(s)) for s in ((3, 2), (4,))] for _ in range(2))
    for a, b in zip(ours, theirs, strict=True):
        a.grad = torch.randn(a.shape, generator=rng)
        b.grad = a.grad.clone()
    with gpu.surroundings(QUICK):
        step, optimizer = gpu.our_adamw(ours, setup), torch.optim.AdamW(theirs)
        for _ in range(3):
            step()
            optimizer.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


# What only runs on a GPU, with a stand-in that notes what it is asked


class Cuda:
    "Streams, graphs and copies that only write down what they would do, and in which stream."

    def __init__(self):
        self.log, self.now = [], "main"

    def Stream(self):
        return self.stream_called("side")

    def current_stream(self):
        return self.stream_called(self.now)

    def stream_called(self, name):
        return SimpleNamespace(name=name, wait_stream=lambda other: self.note(f"{name} waits for {other.name}"))

    def note(self, what):
        self.log.append(what)

    @contextmanager
    def stream(self, stream):
        before, self.now = self.now, stream.name
        yield
        self.now = before

    def CUDAGraph(self):
        return SimpleNamespace(replay=lambda: self.note("replay"))

    @contextmanager
    def graph(self, graph):
        self.note("capture")
        yield
        self.note("captured")

    def batch(self, name):
        def to(device, non_blocking):
            assert non_blocking
            self.note(f"copy {name} in {self.now}")
            return SimpleNamespace(name=name, record_stream=lambda s: self.note(f"{name} is used in {s.name}"))

        return SimpleNamespace(to=to)


@pytest.fixture
def cuda(monkeypatch):
    fake = Cuda()
    for name in ("Stream", "current_stream", "stream", "CUDAGraph", "graph"):
        monkeypatch.setattr(torch.cuda, name, getattr(fake, name))
    return fake


ON_GPU = gpu.Setup(torch.device("cuda"), "a GPU", False, 0.0, {})


def test_a_batch_is_copied_while_the_one_before_is_used(cuda):
    gpu.overlapped(ON_GPU, [cuda.batch(i) for i in "ab"], lambda x: cuda.note(f"use {x.name} in {cuda.now}"))()
    assert cuda.log == [
        *("side waits for main", "copy a in side"),
        *("main waits for side", "a is used in main", "copy b in side", "use a in main"),
        *("main waits for side", "b is used in main", "use b in main"),
    ]


def test_a_graph_is_captured_after_a_warm_up_on_a_side_stream(cuda):
    replay = gpu.captured(ON_GPU, lambda: cuda.note(f"step in {cuda.now}"))
    replay()
    warm = ["side waits for main", *["step in side"] * 3, "main waits for side"]
    assert cuda.log == [*warm, "capture", "step in main", "captured", "replay"]


def test_what_is_said_of_a_gpu(monkeypatch):
    properties = SimpleNamespace(major=9, minor=0, total_memory=85 * 10**9, multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda: properties)
    monkeypatch.setattr(gpu.subprocess, "run", lambda *a, **o: SimpleNamespace(stdout="580.1\n580.1\n"))
    found = gpu.about_device(ON_GPU)
    assert found | {"cuda": ""} == {
        **{"type": "cuda", "name": "a GPU", "driver": "580.1", "cuda": "", "capability": "9.0"},
        **{"memory": 85 * 10**9, "processors": 132},
    }
    monkeypatch.setattr(gpu.subprocess, "run", lambda *a, **o: fails_to_start())
    assert gpu.driver() == ""
    head = gpu.head(ON_GPU, tuple(gpu.EXPERIMENTS), live=True) | {"seconds": 1.0, "experiments": []}
    recordings.check_recording(head)
    assert head["command"] == "python -m benchmarks.gpu"
    assert gpu.file_name(head).endswith("-a-gpu.json")


def fails_to_start():
    raise FileNotFoundError("nvidia-smi")


# Reading


def test_the_newest_is_the_one_of_the_latest_date(made, tmp_path):
    text = made.read_text(encoding="utf-8")
    for name in ("gpu-2026-01-02-b.json", "gpu-2027-01-01-a.json", "gpu-2026-12-31-c.json", "other-2028-01-01-a.json"):
        day = name[4:14] if name.startswith("gpu") else "2028-01-01"
        found = json.loads(text) | {"date": day}
        (tmp_path / name).write_text(json.dumps(found), encoding="utf-8")
    assert recordings.load_newest("gpu", tmp_path)["date"] == "2027-01-01"
    assert recordings.load_newest("gpu", tmp_path / "nowhere") is None


SPOILED = {
    "a key too few": (lambda r: r.pop("date"), "must have the keys"),
    "a key too many": (lambda r: r.update(more=1), "must have the keys"),
    "a type": (lambda r: r.update(live="no"), "live must be of type bool"),
    "the date": (lambda r: r.update(date="yesterday"), "isoformat"),
    "the format": (lambda r: r.update(format=2), "format must be 1"),
    "the versions": (lambda r: r["versions"].pop("torch"), "versions must name"),
    "the device": (lambda r: r["device"].pop("driver"), "device must have the keys"),
    "nothing": (lambda r: r["experiments"][0].update(rows=[], error=""), "rows or an error"),
    "a row": (lambda r: r["experiments"][0]["rows"][0].pop("target"), "must have the keys"),
    "a sample": (lambda r: r["experiments"][0]["rows"][0]["samples"].append(-1.0), "seconds, 0 or more"),
    "another sample": (
        lambda r: r["experiments"][8]["rows"][0]["others"]["torch"].append("1"),
        "torch must be seconds",
    ),
    "quartiles": (lambda r: r["experiments"][0]["rows"][0]["quartiles"].reverse(), "those of the samples"),
    "a figure": (lambda r: r["experiments"][0]["rows"][0]["figures"].update(x=math.inf), "finite number or text"),
    "a large figure": (lambda r: r["experiments"][0]["rows"][0]["figures"].update(x=10**400), "too large"),
    "no row": (lambda r: r["experiments"][0]["rows"].append(None), "no attribute"),
    "a target": (lambda r: r["experiments"][0]["rows"][0]["target"].update(least=1), "figure and text"),
}


@pytest.mark.parametrize("what", SPOILED)
def test_a_spoiled_recording_is_refused(recording, tmp_path, what):
    spoil, message = SPOILED[what]
    spoil(recording)
    file = tmp_path / "gpu-2026-01-01-a.json"
    file.write_text(json.dumps(recording), encoding="utf-8")
    with pytest.raises(ValueError, match=f"gpu-2026-01-01-a.json is not a recording: .*{message}"):
        recordings.load(file)


def test_half_a_file_is_refused(made, tmp_path):
    file = tmp_path / "gpu-2026-01-01-a.json"
    file.write_text(made.read_text(encoding="utf-8")[:500], encoding="utf-8")
    with pytest.raises(ValueError, match="gpu-2026-01-01-a.json is not a recording"):
        recordings.load_newest("gpu", tmp_path)
    file.write_text("null", encoding="utf-8")
    with pytest.raises(ValueError, match="not a recording: the recording must be a dict, got None"):
        recordings.load(file)


# Showing


def test_without_a_recording_it_says_so():
    shown = recordings.table(None, "ceilings")
    assert (shown.rows, shown.caption) == ((), recordings.origin(None))
    assert "No recording yet" in str(shown)
    assert "No recording yet" in shown._repr_html_()
    assert "run <code>python -m benchmarks.gpu</code> on a GPU" in shown._repr_html_()
    assert "<table" not in shown._repr_html_()


def test_no_number_without_its_origin(recording):
    said = recordings.origin(recording)
    for part in (
        recording["date"],
        "on CPU, ",
        torch.__version__,
        recording["command"],
        "not run here",
        "mean nothing",
    ):
        assert part in said
    on_gpu = copy.deepcopy(recording) | {"quick": False}
    on_gpu["device"] |= {"name": "NVIDIA H200", "driver": "580.1"}
    assert f"Recorded on {recording['date']} on NVIDIA H200 (driver 580.1, torch " in recordings.origin(on_gpu)
    assert "mean nothing" not in recordings.origin(on_gpu)
    assert recordings.origin(on_gpu | {"live": True}).startswith(
        f"Measured here, on {recording['date']} on NVIDIA H200"
    )
    for name in gpu.EXPERIMENTS:
        shown = recordings.table(recording, name)
        assert {len(row) for row in shown.rows} == {len(shown.columns)}
        assert all(isinstance(cell, str) for row in shown.rows for cell in row)
        assert str(shown).endswith(said)
        assert said.replace("`", "") in re.sub("</?code>", "", shown._repr_html_())


def example(**row):
    "A recording with one experiment of one row."
    one = {"name": "a", "title": "A <b>", "about": "", "seconds": 1.0, "error": "", "rows": [gpu.row_of("case", **row)]}
    versions, device = {"torch": "2"}, {"name": "X", "driver": ""}
    head = {"date": "2026-01-01", "live": False, "quick": False, "command": "c"}
    return head | {"device": device, "versions": versions, "experiments": [one]}


@pytest.mark.parametrize(
    ("figures", "bounds", "word"),
    [
        ({"x": 2.0}, {"least": 2.0}, "reached"),
        ({"x": 1.99}, {"least": 2.0}, "missed"),
        ({"x": 0.3}, {"most": 1 / 3}, "reached"),
        ({"x": 0.34}, {"most": 1 / 3}, "missed"),
        ({}, {"least": 2.0}, "missed"),
        ({"x": "unknown device"}, {"least": 2.0}, "missed"),
    ],
)
def test_targets_stand_beside_the_figures(figures, bounds, word):
    target = {"figure": "x", "text": "wanted"} | bounds
    shown = recordings.table(example(samples=[1e-3, 3e-3, 2e-3], figures=figures, target=target), "a")
    assert shown.columns == ("", "median", "quartiles", *figures, "target")
    assert shown.rows[0][:3] == ("case", "2 ms", "1.5 ms to 2.5 ms")
    assert shown.rows[0][-1] == f"wanted: {word}"
    assert "A &lt;b&gt;" in shown._repr_html_()


def test_what_failed_is_shown():
    assert recordings.table(example(error="OutOfMemoryError: too much"), "a").rows == (
        ("case", "failed: OutOfMemoryError: too much", ""),
    )
    failed = example()
    failed["experiments"][0] |= {"rows": [], "error": "RuntimeError: no"}
    assert "This experiment failed: RuntimeError: no. Recorded on" in str(recordings.table(failed, "a"))
    assert "It has no experiment called 'b'. Recorded on" in str(recordings.table(failed, "b"))


@pytest.fixture
def nothing_live(monkeypatch):
    monkeypatch.setattr(recordings, "_LIVE", {})


@pytest.mark.usefixtures("nothing_live")
def test_what_was_measured_here_comes_first(monkeypatch, made):
    monkeypatch.setattr(recordings, "FOLDER", made.parent)
    assert "Recorded on" in str(recordings.show("gpu", "timing"))
    live = recordings.measure_here("timing", device="cpu", quick=True)
    recordings.check_recording(live)
    assert live["live"]
    assert "Measured here" in str(recordings.show("gpu", "timing"))
    assert "Recorded on" in str(recordings.show("gpu", "copies"))
    monkeypatch.setattr(recordings, "FOLDER", made.parent / "nowhere")
    assert "No recording yet" in str(recordings.show("gpu", "copies"))


def test_a_lesson_compiles_nothing(monkeypatch):
    monkeypatch.setattr(gpu, "compiled", lambda *given, **options: fails())
    found = gpu.record(("adamw", "functions"), "cpu", quick=True, live=True)
    assert not any(row["error"] for one in found["experiments"] for row in one["rows"])
    functions = recordings.experiment(found, "functions")["rows"]
    assert len(functions) == sum(f.against != gpu.gpu_functions.INTERNAL for f in gpu.gpu_functions.FUNCTIONS)
    assert all("difference, float64" in row["figures"] and not row["samples"] for row in functions)


@pytest.mark.usefixtures("nothing_live")
def test_a_lesson_asks_for_the_short_experiments(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "record", lambda *given, **options: asked.append((given, options)) or {"kind": "gpu"})
    assert recordings.measure_here() == {"kind": "gpu"}
    assert asked == [((gpu.SHORT, "cuda"), {"quick": False, "live": True})]


def test_without_a_gpu_or_the_checkout_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert recordings.measure_here() is None
    monkeypatch.setitem(sys.modules, "benchmarks.gpu", None)
    assert recordings.measure_here(device="cpu") is None


def test_another_missing_package_is_an_error(monkeypatch):
    def import_module(name):
        raise ModuleNotFoundError("No module named 'typer'", name="typer")

    monkeypatch.setattr(recordings.importlib, "import_module", import_module)
    with pytest.raises(ModuleNotFoundError, match="typer"):
        recordings.measure_here(device="cpu")


def test_durations_and_quartiles():
    assert [recordings.duration(s) for s in (1.23456, 0.0456, 4.5e-5, 1e-7)] == ["1.23 s", "45.6 ms", "45 µs", "0.1 µs"]
    assert recordings.quartiles([4.0, 1.0, 3.0, 2.0, 5.0]) == [2.0, 3.0, 4.0]
    assert recordings.quartiles([2.0]) == [2.0] * 3
    assert recordings.quartiles([]) == []


# The limits of the processor


def test_what_the_limits_record(monkeypatch):
    monkeypatch.setattr(cpu_limits, "wait_until_idle", lambda: 0.0)
    monkeypatch.setattr(cpu_limits, "num_threads", lambda: 1)
    monkeypatch.setattr(cpu_limits, "in_new_processes", lambda f, cases: [f(*case) for case in cases])
    monkeypatch.setattr(cpu_limits, "compare_all", lambda f, n: measure.compare_all(f, n, at_least=0))
    monkeypatch.setattr(
        cpu_limits, "PROGRAMS", {"a": (cpu_limits.norm_and_gelu, 4, 8), "b": (cpu_limits.training_step, 4, 8)}
    )
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    result = cpu_limits.run(2, 2**8, (4, 8), "eager")
    assert {len(row) for row in result["rows"]} == {len(result["columns"])}
    assert len(result["rows"]) == 1 + 2 * 2 + 2
    raw = result["raw"]
    assert [(m["size"], m["dtype"]) for m in raw["matmul"]] == [(n, d) for n in (4, 8) for d in ("float32", "bfloat16")]
    for one in raw["matmul"]:
        assert one["gigaflops"] == pytest.approx(2e-9 * one["size"] ** 3 / np.median(one["seconds"]))
    assert raw["memory"][0]["gigabytes_per_second"] == pytest.approx(
        2**11 / np.median(raw["memory"][0]["seconds"]) / 1e9
    )
    for one in raw["compile"]:
        saved = np.median(one["eager"]) - np.median(one["compiled"])
        extra = one["cold_seconds"] - one["first_eager_seconds"]
        assert one["calls_to_break_even"] == (pytest.approx(extra / saved) if saved > 0 else None)


def test_break_even_is_told():
    one = {"name": "x", "threads": 2, "cold_seconds": 9.0, "eager": [3.0, 3.0], "compiled": [1.0, 1.0]}
    for calls, said in ((4.2, "breaks even after 4 calls"), (None, "never breaks even")):
        raw = {"memory": [], "matmul": [], "compile": [one | {"calls_to_break_even": calls}]}
        ((what, _, threads, cold, ratio),) = cpu_limits.rows_of(raw)
        assert (what, threads, cold) == ("torch.compile: x", 2, f"first call 9 s, {said}")
        assert ratio == "3.00 (3.00 to 3.00)"


@pytest.mark.parametrize(
    ("flags", "unit"),
    [("fpu amx_bf16 avx512_bf16", "amx_bf16"), ("fpu avx512_bf16", "avx512_bf16"), ("amx_tile amx_bf16x", "none")],
)
def test_what_the_processor_has_for_bfloat16(tmp_path, flags, unit):
    info = tmp_path / "cpuinfo"
    info.write_text(f"model name\t: amx_bf16\nflags\t\t: {flags}\n", encoding="utf-8")
    assert cpu_limits.bfloat16_units(info) == unit
    assert cpu_limits.bfloat16_units(tmp_path / "nowhere") == "none"
