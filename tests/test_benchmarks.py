"""The benchmarks' machinery: fair turns, memory, origin, files that can be resumed. No test asserts a time."""

import ast
import json
import os
import platform
import re
import subprocess
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info
from typer.testing import CliRunner

from benchmarks import __main__ as bench
from benchmarks import measure
from dlopt_course.core import num_threads

FILES = sorted(bench.RESULTS.glob("*.json"))


class Clock:
    "A clock that moves only when something is done."

    def __init__(self):
        self.now, self.log = 0.0, []

    def __call__(self) -> float:
        return self.now

    def work(self, name: str, seconds: float):
        "A function that takes so long and notes that it was called."

        def f():
            self.now += seconds
            self.log.append(name)

        return f


# Comparing


def test_compare_takes_turns_and_changes_the_order():
    clock = Clock()
    result = measure.compare(clock.work("a", 1.0), clock.work("b", 3.0), rounds=4, at_least=1, clock=clock)
    assert "".join(clock.log) == "aabb" + "ab" + "ba" + "ab" + "ba"  # first call, calibration, rounds
    assert result.ours == [1.0] * 4
    assert result.peer == [3.0] * 4


def test_ratio_is_above_one_where_ours_is_ahead():
    result = measure.Comparison([1.0, 1.0, 2.0, 1.0, 1.0], [2.0, 3.0, 2.0, 4.0, 5.0])
    assert result.ratios == [2.0, 3.0, 1.0, 4.0, 5.0]
    assert result.quartiles == (2.0, 3.0, 4.0)
    assert measure.Comparison([2.0], [1.0]).quartiles == (0.5, 0.5, 0.5)
    assert result.raw() == {"seconds": result.ours, "peer_seconds": result.peer}
    assert str(result) == "3.00 (2.00 to 4.00)"


def test_each_of_many_has_its_turn_and_begins_a_round():
    clock = Clock()
    functions = {name: clock.work(name, seconds) for name, seconds in {"a": 1.0, "b": 3.0, "c": 0.5}.items()}
    samples = measure.compare_all(functions, rounds=4, at_least=1, clock=clock)
    assert "".join(clock.log) == "aabbcccc" + "abcc" + "bcca" + "ccab" + "abcc"
    assert samples == {"a": [1.0] * 4, "b": [3.0] * 4, "c": [0.5] * 4}


def test_short_calls_are_repeated():
    clock = Clock()
    result = measure.compare(clock.work("a", 0.25), clock.work("b", 8.0), rounds=2, at_least=1, clock=clock)
    assert result.ours == [0.25, 0.25]
    assert "".join(clock.log[-10:]) == "aaaabbaaaa"


def test_what_slows_the_machine_slows_both():
    clock = Clock()

    def slower_and_slower(factor):
        def f():
            clock.now += factor * (1 + len(clock.log) // 2)
            clock.log.append(factor)

        return f

    result = measure.compare(slower_and_slower(1), slower_and_slower(2), rounds=20, at_least=0, clock=clock)
    assert result.quartiles[1] == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.23456, "1.23 s"), (0.0456, "45.6 ms"), (4.5e-5, "45 µs"), (1e-7, "0.1 µs"), (123.4, "123 s")],
)
def test_durations_have_three_digits(seconds, text):
    assert measure.duration(seconds) == text


def test_waits_until_others_are_idle():
    shares = iter([0.9, 0.4, 0.05, 0.9])
    assert measure.wait_until_idle(look=lambda: next(shares)) == 0.05
    assert next(shares) == 0.9  # it did not look again


def test_does_not_wait_for_ever():
    shares = iter([0.9, 0.8, 0.7, 0.6])
    assert measure.wait_until_idle(at_most=3, look=lambda: next(shares)) == 0.7


def test_busy_share_is_a_share():
    assert 0 <= measure.busy_share(0.05) <= 1


# Memory and threads


def test_peak_memory_is_what_lies_beyond_input_and_result():
    x, size = np.ones(100_000), 800_000
    one = measure.peak_memory(lambda: x + 1, lambda result: result.nbytes)
    two = measure.peak_memory(lambda: [x + 1, x + 2][0], lambda result: result.nbytes)
    assert 0 <= one < 10_000
    assert size <= two < size + 10_000


def test_what_is_kept_counts_in_the_first_call_alone():
    kept = []

    def keeps():
        if not kept:
            kept.append(np.ones(100_000))

    assert 800_000 <= measure.peak_memory(keeps, first=True) < 810_000
    kept.clear()
    assert measure.peak_memory(keeps) < 10_000


def test_new_processes_are_new_and_keep_the_order():
    found = measure.in_new_processes(os.getppid, [(), ()]) + measure.in_new_processes(divmod, [(7, 2), (9, 5)])
    assert found == [os.getpid()] * 2 + [(3, 1), (1, 4)]
    first, second = measure.in_new_processes(os.getpid, [(), ()])
    assert first != second


def test_peak_memory_ends_tracing_after_an_error():
    with pytest.raises(ZeroDivisionError):
        measure.peak_memory(lambda: 1 / 0)
    assert not measure.tracemalloc.is_tracing()


def blas_threads():
    "How many threads each BLAS library that is loaded uses."
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@pytest.mark.parametrize("setting", [None, "3"])
def test_threads_are_set_and_put_back(setting, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if setting:
        monkeypatch.setenv("OMP_NUM_THREADS", setting)
    before, blas = torch.get_num_threads(), blas_threads()
    with measure.threads(1):
        assert (num_threads(), torch.get_num_threads(), set(blas_threads())) == (1, 1, {1})
    assert (os.environ.get("OMP_NUM_THREADS"), torch.get_num_threads(), blas_threads()) == (setting, before, blas)


# Origin


def test_origin_names_no_host():
    origin = measure.origin("losses")
    assert origin["command"] == "python -m benchmarks losses"
    assert origin["date"] == date.today().isoformat()
    assert {"python", "numpy", "torch"} == set(origin["versions"])
    assert re.fullmatch(r".+, \d+ cores, \w+", origin["machine"])
    assert platform.node() not in origin["machine"].split()


def git(folder, *command):
    "Run git as somebody."
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *who, *command], cwd=folder, check=True, capture_output=True)


def test_commit_tells_of_changes_but_not_of_results(tmp_path):
    for name in ("dlopt_course/a.py", "benchmarks/results/a.json"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("1", encoding="utf-8")
    assert measure.commit(tmp_path / "nowhere") == "unknown"
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "one")
    clean = measure.commit(tmp_path)
    assert re.fullmatch(r"[0-9a-f]{7,}", clean)
    (tmp_path / "benchmarks/results/a.json").write_text("2", encoding="utf-8")
    assert measure.commit(tmp_path) == clean
    (tmp_path / "dlopt_course/a.py").write_text("2", encoding="utf-8")
    assert measure.commit(tmp_path) == clean + "+changes"


def test_fingerprint_follows_the_contents(tmp_path):
    (tmp_path / "a.py").write_text("1", encoding="utf-8")
    before = measure.fingerprint("*.py", root=tmp_path)
    (tmp_path / "b.txt").write_text("not code", encoding="utf-8")
    assert measure.fingerprint("*.py", "a.py", root=tmp_path) == before
    (tmp_path / "a.py").write_text("2", encoding="utf-8")
    assert measure.fingerprint("*.py", root=tmp_path) != before


# Resuming


@pytest.fixture
def fake(monkeypatch):
    "A benchmark that only counts how often it ran."
    module = SimpleNamespace(runs=0)

    def run():
        module.runs += 1
        return {"title": "t", "about": "a", "columns": ["n"], "rows": [[module.runs]], "notes": [], "raw": {}}

    module.run = run
    monkeypatch.setattr(bench, "load", lambda name: module)
    return module


def test_a_current_result_is_kept(fake, tmp_path):
    assert bench.measure("fake", tmp_path)
    assert not bench.measure("fake", tmp_path)
    assert fake.runs == 1
    assert bench.measure("fake", tmp_path, again=True)
    assert json.loads((tmp_path / "fake.json").read_text(encoding="utf-8"))["rows"] == [[2]]


@pytest.mark.parametrize("key", bench.SAME)
def test_another_origin_is_measured_again(fake, tmp_path, key):
    bench.measure("fake", tmp_path)
    path = tmp_path / "fake.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {key: "other"}), encoding="utf-8")
    assert bench.measure("fake", tmp_path)


@pytest.mark.parametrize("spoil", [lambda text: text[:50], lambda text: "{}", lambda text: ""])
def test_an_incomplete_result_is_measured_again(fake, tmp_path, spoil):
    bench.measure("fake", tmp_path)
    path = tmp_path / "fake.json"
    path.write_text(spoil(path.read_text(encoding="utf-8")), encoding="utf-8")
    assert bench.measure("fake", tmp_path)
    assert bench.is_current(path, measure.origin("fake", ("dlopt_course/*.py",)))


def test_a_failing_benchmark_leaves_the_old_result(fake, tmp_path, monkeypatch):
    bench.measure("fake", tmp_path)
    before = (tmp_path / "fake.json").read_bytes()
    monkeypatch.setattr(fake, "run", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        bench.measure("fake", tmp_path, again=True)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [before]


def command() -> bench.typer.Typer:
    "The command line as an application that the runner can call."
    app = bench.typer.Typer()
    app.command()(bench.main)
    return app


def test_the_command_line(monkeypatch):
    calls = []
    monkeypatch.setattr(bench, "measure", lambda name, again: calls.append((name, again)) or again)
    assert "losses: kept, benchmarks/results/losses.json" in CliRunner().invoke(command(), ["losses"]).output
    assert "losses: measured" in CliRunner().invoke(command(), ["losses", "--again"]).output
    assert calls == [("losses", False), ("losses", True)]
    wrong = CliRunner().invoke(command(), ["lossses"])
    assert wrong.exit_code == 2
    assert "lossses" in wrong.output


# What is recorded


def test_every_benchmark_has_a_result():
    assert {p.stem for p in FILES} == set(bench.names())


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_results_have_what_the_site_shows(path: Path):
    result = json.loads(path.read_text(encoding="utf-8"))
    assert set(result) == set(bench.KEYS)
    assert all(isinstance(result[k], str) and result[k] for k in ("title", "about", "command", "machine", "commit"))
    assert date.fromisoformat(result["date"]) <= date.today()
    assert all(isinstance(v, str) for v in result["versions"].values())
    assert all(isinstance(note, str) for note in result["notes"])
    assert result["command"] == f"python -m benchmarks {path.stem}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_rows_are_as_long_as_the_columns(path: Path):
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["rows"]
    assert {len(row) for row in result["rows"]} == {len(result["columns"])}
    assert all(isinstance(cell, (str, int, float)) for row in result["rows"] for cell in row)


def test_losses_records_every_size_form_and_its_memory():
    from benchmarks import losses

    samples = json.loads((bench.RESULTS / "losses.json").read_text(encoding="utf-8"))["raw"]["samples"]
    assert {tuple(s["shape"]) for s in samples} == set(losses.SIZES)
    for s in samples:
        assert len(s["seconds"]) == len(s["peer_seconds"]) >= 3
        if s["form"] == "blocks":
            assert s["memory"] <= s["threads"] * 4 * losses._BLOCK


@pytest.mark.parametrize("threads", [1, 2])
def test_blocks_need_one_block_of_memory_per_thread(threads):
    from benchmarks import losses

    rng = np.random.default_rng(0)
    logits, target = rng.standard_normal((4096, 500), dtype=np.float32), rng.integers(0, 500, 4096)
    with measure.threads(threads):
        beyond = measure.peak_memory(lambda: losses.together(logits, target), lambda both: both[1].nbytes)
    assert beyond <= threads * 4 * losses._BLOCK


def test_the_forms_and_torch_agree():
    from benchmarks import losses

    rng = np.random.default_rng(0)
    logits, target = rng.standard_normal((30, 7), dtype=np.float32), rng.integers(0, 7, 30)
    for name, ours in losses.forms(logits, target).items():
        value, grad = losses.by_torch(10 * logits if "x 10" in name else logits, target)()
        np.testing.assert_allclose(ours()[0], value.detach(), rtol=1e-5)
        np.testing.assert_allclose(ours()[1], grad, rtol=1e-4, atol=1e-7)


# The optimizers


@pytest.mark.parametrize("shape", [(1, 300_000), (20, 50), (3, 70_000)], ids=str)
@pytest.mark.parametrize("rule", ["Adam", "AdamW"])
def test_all_forms_and_torch_move_alike(rule, shape):
    from benchmarks import optim

    rng, (start, grads), found = np.random.default_rng(1), optim.arrays(*shape), {}
    functions = {}
    for name in (*optim.FORMS, *optim.PEERS):
        found[name] = {key: p.copy() for key, p in start.items()}
        forms = (name,) if name in optim.FORMS else ()
        functions[name] = optim.steps(rule, forms, found[name], grads)[name]
    for _ in range(3):
        for g in grads.values():
            g[:] = rng.standard_normal(g.shape)
        for step in functions.values():
            step()
    for params in found.values():
        for key, p in params.items():
            assert np.median(np.abs(p - start[key])) > 1e-4
            np.testing.assert_allclose(p, found["for-loop"][key], rtol=1e-5, atol=1e-7)


OBJECTS = 2**18  # bytes of Python's own objects: views, tasks


@pytest.fixture(scope="module")
def memory_of_a_step() -> dict[tuple, int]:
    "By form and threads: what a step on one array of 10^6 numbers allocates."
    from benchmarks import optim

    cases = [("blocked", 1), ("threaded", 2), ("compiled", 2), ("plain", 1)]
    found = measure.in_new_processes(optim.memory, [("AdamW", *case, 1, 10**6) for case in cases])
    return dict(zip(cases, found, strict=True))


def test_a_step_needs_one_block_of_memory_per_thread(memory_of_a_step):
    from benchmarks import optim

    for (form, threads), beyond in memory_of_a_step.items():
        assert form == "plain" or beyond <= threads * 4 * optim._BLOCK + OBJECTS
    assert memory_of_a_step["plain", 1] > 4 * 10**6  # or it would not be seen


def test_what_the_optimizers_record(monkeypatch):
    from benchmarks import optim

    monkeypatch.setattr(optim, "SIZES", {"Adam": [(3, 2), (5, 5)], "AdamW": [(1, 10)]})
    monkeypatch.setattr(optim, "wait_until_idle", lambda: 0.0)
    asked = []
    monkeypatch.setattr(optim, "in_new_processes", lambda f, cases: asked.extend(cases) or [2**20] * len(cases))
    result = optim.run({(1, 10): 2, (3, 2): 3})
    cores = {form: 1 if form in ("plain", "blocked") else num_threads() for form in optim.FORMS}
    lines = [("Adam", "3 x 2"), ("AdamW", "10")]
    assert [tuple(row[:4]) for row in result["rows"]] == [(*line, *form) for line in lines for form in cores.items()]
    assert {len(row) for row in result["rows"]} == {len(result["columns"])}
    assert {row[-1] for row in result["rows"]} == {"1.00 MiB"}
    assert len(asked) == len(set(asked)) == len(result["rows"])
    for s in result["raw"]["samples"]:
        assert {len(x) for x in s["seconds"].values()} == {2 if s["arrays"] == [1, 10] else 3}
        assert list(s["seconds"]) == [*s["memory"], *optim.PEERS]


def test_optim_records_every_size_form_and_its_memory():
    from benchmarks import optim

    samples = json.loads((bench.RESULTS / "optim.json").read_text(encoding="utf-8"))["raw"]["samples"]
    found = {(s["rule"], *s["arrays"], form): (s["threads"], x) for s in samples for form, x in s["memory"].items()}
    assert set(found) == {(rule, *n, form) for rule in optim.RULES for n in optim.SIZES[rule] for form in optim.FORMS}
    assert all(len(x) >= 5 for s in samples for x in s["seconds"].values())
    for (*_, number, _, form), (threads, beyond) in found.items():
        if number == 1 and form != "plain":
            assert beyond <= threads * 4 * optim._BLOCK + OBJECTS


# The training step


def test_training_steps_are_the_same():
    from benchmarks import training

    params = {name: training.start() for name in (*training.FORMS, *training.PEERS)}
    functions = training.steps(params)
    losses = {name: [float(f()) for _ in range(5)] for name, f in functions.items()}
    for name in functions:
        np.testing.assert_allclose(losses[name], losses["for-loop"], rtol=1e-5)
        for key, p in params[name].items():
            np.testing.assert_allclose(p, params["for-loop"][key], rtol=1e-5, atol=1e-6)
            assert np.abs(p - training.start()[key]).max() > 1e-3


def test_training_goes_on_to_learn():
    from benchmarks import training

    step = training.by_numpy(training.start())
    losses = [step() for _ in range(300)]
    assert np.mean(losses[-50:]) < 0.5 * np.mean(losses[:50])


def test_what_training_records(monkeypatch):
    from benchmarks import training

    monkeypatch.setattr(training, "wait_until_idle", lambda: 0.0)
    monkeypatch.setattr(training, "num_threads", lambda: 1)
    result = training.run(2)
    assert [row[:2] for row in result["rows"]] == [[form, 1] for form in training.FORMS]
    assert {len(row) for row in result["rows"]} == {len(result["columns"])}
    assert {len(x) for s in result["raw"]["samples"] for x in s["seconds"].values()} == {2}


# The networks


def test_networks_train_as_in_torch():
    from benchmarks import networks

    for case, (model, shape, _) in networks.CASES.items():
        params = {name: networks.start(model) for name in ("ours", *networks.PEERS)}
        functions = networks.steps(model, params, networks.batches(shape, 8))
        losses = {name: [float(f()) for _ in range(4)] for name, f in functions.items()}
        for name in functions:
            np.testing.assert_allclose(losses[name], losses["for-loop"], rtol=1e-4, err_msg=case)
            for key, p in params[name].items():
                np.testing.assert_allclose(p, params["for-loop"][key], rtol=1e-3, atol=1e-4, err_msg=f"{case} {key}")
                assert np.abs(p - networks.start(model)[key]).max() > 1e-3


def test_digits_are_what_fits_their_shape():
    from benchmarks import networks

    digits = networks.load_digits(dtype=np.float32, scaled=True)
    for shape in ((64,), (1, 8, 8), (8, 8)):
        batches = networks.batches(shape, 32)
        assert len(batches) == networks.BATCHES
        for i, (x, y) in enumerate(batches):
            assert x.shape == (32, *shape)
            np.testing.assert_array_equal(x.reshape(32, 64), digits.x[32 * i : 32 * i + 32])
            np.testing.assert_array_equal(y, digits.y[32 * i : 32 * i + 32])
    x, y = networks.batches((3, 4, 4), 5)[0]
    assert (x.shape, x.dtype, y.shape) == ((5, 3, 4, 4), np.float32, (5,))


def test_shares_are_of_the_phases():
    from benchmarks import networks

    model, shape, _ = networks.CASES["MLP 64-32-10"]
    shares = networks.shares(model, networks.batches(shape, 4), 5)
    assert tuple(shares) == networks.PHASES
    assert all(share > 0 for share in shares.values())
    assert sum(shares.values()) == pytest.approx(1)


def test_what_the_networks_record(monkeypatch):
    from benchmarks import networks

    chosen = {"MLP 64-32-10": (4, 6), "LSTM 8 rows of 8": (5,)}
    monkeypatch.setattr(networks, "CASES", {k: (*networks.CASES[k][:2], sizes) for k, sizes in chosen.items()})
    monkeypatch.setattr(networks, "wait_until_idle", lambda: 0.0)
    monkeypatch.setattr(networks, "num_threads", lambda: 1)
    monkeypatch.setattr(networks, "compare_all", lambda f, n: measure.compare_all(f, n, at_least=0))
    result = networks.run(2)
    assert [row[:3] for row in result["rows"]] == [[k, size, 1] for k, sizes in chosen.items() for size in sizes]
    assert {len(row) for row in result["rows"]} == {len(result["columns"])}
    for s in result["raw"]["samples"]:
        assert list(s["seconds"]) == ["ours", *networks.PEERS]
        assert {len(x) for x in s["seconds"].values()} == {2}


# What the remedies against overfitting buy


def test_what_the_remedies_record(monkeypatch):
    from benchmarks import remedies

    def bought(name, draw, share):
        right = (0.5 if name == "none" else 0.75) + (draw % 2) / 8
        return right, 1.0 + share + draw % 2, draw % 4, right / 2, 1.0 - share

    monkeypatch.setattr(remedies, "lesson", lambda: {"bought": bought, "remedies": {"none": [], "noise": []}})
    result = remedies.run(range(10, 12))
    wrong, all_right = ["1.700 ± 0.707", "0.800 ± 0.000"], ["1.500 ± 0.707", "1.000 ± 0.000"]
    none, noise = ["0.562 ± 0.088", "0.0000 ± 0.0000"], ["0.812 ± 0.088", "0.2500 ± 0.0000"]
    assert result["rows"] == [
        ["one in five wrong", "none", *none, wrong[0], "0.281 ± 0.044", wrong[1]],
        ["one in five wrong", "noise", *noise, wrong[0], "0.406 ± 0.044", wrong[1]],
        ["right", "none", *none, all_right[0], "0.281 ± 0.044", all_right[1]],
        ["right", "noise", *noise, all_right[0], "0.406 ± 0.044", all_right[1]],
    ]
    assert all(len(row) == len(result["columns"]) for row in result["rows"])
    assert result["raw"]["samples"][1][remedies.RECORDED] == [[0.75, 1.2, 2, 0.375, 0.8], [0.875, 2.2, 3, 0.4375, 0.8]]


def test_lesson_7_tells_what_was_recorded():
    from benchmarks import remedies

    cells = {c.id: c.source for c in nbformat.read(measure.ROOT / remedies.LESSON, 4).cells}
    told = next(x.value for x in ast.parse(cells["experiment-claims"]).body if isinstance(x, ast.Assign))
    samples = json.loads((bench.RESULTS / "remedies.json").read_text(encoding="utf-8"))["raw"]["samples"]
    found = {s["remedy"]: np.array(s[remedies.RECORDED])[:, 0] for s in samples if s["labels"] != "right"}
    for name, (mean, spread) in ast.literal_eval(told).items():
        gains = found[name] - found["none"]
        assert (mean, spread) == (round(gains.mean(), 4), round(gains.std(ddof=1), 4)), name


# What each augmentation buys on digits


def test_digits_are_split_alike_in_every_size():
    from benchmarks import digits_augmented

    (few, test), (many, same) = (digits_augmented.parts(size, 3) for size in (50, 1000))
    assert (few.x.shape, test.x.shape, few.x.dtype) == ((50, 8, 8, 1), (797, 8, 8, 1), np.float32)
    np.testing.assert_array_equal(many.x[:50], few.x)
    np.testing.assert_array_equal(same.x, test.x)
    digits = digits_augmented.load_digits(dtype=np.float32, scaled=True)
    both = np.concatenate([many.x, test.x]).reshape(-1, 64)
    np.testing.assert_array_equal(np.sort(both @ np.arange(64)), np.sort(digits.x @ np.arange(64)))
    np.testing.assert_array_equal(np.bincount(np.concatenate([many.y, test.y])), np.bincount(digits.y))


def test_batches_are_drawn_anew_in_every_epoch():
    from benchmarks import digits_augmented

    train, _ = digits_augmented.parts(50, 0)
    for name, (settings, after) in digits_augmented.ROWS.items():
        data = digits_augmented.batches(train, settings, after, 7)
        epochs = [[next(data), next(data)] for _ in range(3)]
        x, y = (np.array([np.concatenate([batch[i] for batch in epoch]) for epoch in epochs]) for i in (0, 1))
        assert (x.shape, x.dtype) == ((3, 50, 1, 8, 8), np.float32)
        found = {image.tobytes() for image in x.reshape(-1, 64)}
        known = {image.tobytes() for image in train.x.reshape(-1, 64)}
        assert (found == known) == (name == "none"), name
        if name != "none":
            assert len(found) > 70, name  # of 150; each flip has 100 to find, erasing leaves every second image
        if y.ndim == 3:
            np.testing.assert_allclose(y.sum(axis=2), 1, rtol=1e-6)
            labels = y.sum(axis=1)
            np.testing.assert_allclose(labels, np.broadcast_to(np.bincount(train.y, minlength=10), (3, 10)), atol=10)
        else:
            np.testing.assert_array_equal(np.sort(y, axis=1), np.broadcast_to(np.sort(train.y), (3, 50)))
        again = digits_augmented.batches(train, settings, after, 7)
        np.testing.assert_array_equal(next(again)[0], epochs[0][0][0])


def test_digits_are_learned_the_same_each_time():
    from benchmarks import digits_augmented

    right = [digits_augmented.accuracy("shift 1 pixel", 100, 0, 60) for _ in range(2)]
    assert right[0] == right[1] > 0.5


def test_what_the_augmentations_record(monkeypatch):
    from benchmarks import digits_augmented

    def all_of(cases):
        return [
            (0.5 if name == "none" else 0.75) + seed / 8 - (name == "mixup") * seed / 4 for name, _, seed, _ in cases
        ]

    monkeypatch.setattr(digits_augmented, "all_of", all_of)
    result = digits_augmented.run((50, 100), range(2), 10)
    found = {row[0]: row[1:] for row in result["rows"]}
    assert list(found) == list(digits_augmented.ROWS)
    assert result["columns"] == ["Augmentation", "50 images", "100 images"]
    assert found["none"] == ["56.2", "56.2"]
    assert found["classic"] == ["81.2: +25.0 (+25.0 to +25.0)"] * 2
    assert found["mixup"] == ["68.8: +12.5 (+0.0 to +25.0)"] * 2
    assert result["raw"]["samples"][1] == {"augmentation": "none", "images": 100, "accuracy": [0.5, 0.625]}


def test_every_augmentation_is_recorded_on_every_size():
    from benchmarks import digits_augmented

    result = json.loads((bench.RESULTS / "digits_augmented.json").read_text(encoding="utf-8"))
    found = {(s["augmentation"], s["images"]): s["accuracy"] for s in result["raw"]["samples"]}
    assert set(found) == {(name, size) for name in digits_augmented.ROWS for size in digits_augmented.SIZES}
    assert {len(mine) for mine in found.values()} == {len(digits_augmented.SEEDS)}
    for name, *cells in result["rows"]:
        for size, text in zip(digits_augmented.SIZES, cells, strict=True):
            assert text == digits_augmented.cell(
                found[name, size], found["none", size] if name != "none" else found[name, size]
            )


# Which columns the lasso chooses


def test_what_the_bootstrap_records():
    from benchmarks import stability

    result = stability.run(30, seed=0)
    chosen, negative = (np.array(result["raw"][what]) for what in ("chosen", "negative"))
    assert chosen.shape == (2, 10)
    assert (chosen[:, 2] == 30).all()  # bmi
    assert (chosen[1] >= chosen[0] - 3).all()
    assert (negative <= chosen).all()
    assert not negative[:, 2].any()
    assert [row[1:] for row in result["rows"]] == [
        [str(n) for pair in zip(c, m, strict=True) for n in pair] for c, m in zip(chosen.T, negative.T, strict=True)
    ]


# The lasso


def test_the_gap_of_the_table_is_the_duality_gap():
    from benchmarks import linear
    from dlopt_course.linear import duality_gap, lasso_path

    X, y = linear.gaussian(60, 30)
    alphas, coefs, _ = lasso_path(X, y, alphas=5, tol=1e-3)
    found = linear.relative_gaps(X, y, alphas, {"one": coefs, "worse": 0.9 * coefs})
    expected = max(duality_gap(X, y, w, a) for a, w in zip(alphas, coefs.T, strict=True)) * 2 * len(y) / (y @ y)
    assert found["one"] == pytest.approx(expected, rel=1e-6)
    assert found["worse"] > found["one"]


def test_all_solvers_of_the_lasso_reach_the_gap(monkeypatch):
    from benchmarks import linear

    monkeypatch.setattr(linear, "wait_until_idle", lambda: 0.0)
    monkeypatch.setattr(linear, "compare_all", lambda f, n: measure.compare_all(f, 3, at_least=0))
    result = linear.run(("diabetes", (60, 20)), ("0.1 alpha_max",))
    assert len(result["rows"]) == 6
    assert {len(row) for row in result["rows"]} == {len(result["columns"])}
    for case in result["raw"]["cases"]:
        assert max(case["gaps"].values()) <= case["target"]
        assert list(case["seconds"]) == list(case["gaps"])
    for case in result["raw"]["ridges"]:
        assert len(set(case["chosen"].values())) == 1
    assert result["notes"][-1].endswith("all are at the target.")


def test_lesson_6_tells_what_was_recorded():
    cells = {c.id: c.source for c in nbformat.read(measure.ROOT / "nbs/06_linear_models.ipynb", 4).cells}
    told = next(x.value for x in ast.parse(cells["stability-claims"]).body if isinstance(x, ast.Assign))
    samples, recorded = ast.literal_eval(told)
    raw = json.loads((bench.RESULTS / "stability.json").read_text(encoding="utf-8"))["raw"]
    assert samples == raw["samples"]
    for k, counts in enumerate(recorded.values()):
        assert counts == {what: raw[what][k] for what in ("chosen", "negative")}
