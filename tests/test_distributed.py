"""The training program for many machines, and the gates that all engines have to pass."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import torch.distributed as dist

from dlopt_course import parallel
from dlopt_course.app import distributed, gates
from dlopt_course.core import write_atomic
from dlopt_course.layers import MLP

HERE = Path(__file__).parent
OPTIONS = {"batch_size": 225, "hidden": (16,), "dtype": "float64"}  # 225 of 1347 samples: an epoch has six steps
FLAGS = ["--batch-size=225", "--hidden=16", "--dtype=float64", "--device=cpu", "--epochs=3", "--save-every=2"]


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No torchrun around, and no process group left."""
    for name in [n for n in os.environ if n.startswith("TORCHELASTIC") or n in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]:
        monkeypatch.delenv(name)
    yield
    if dist.is_initialized():
        distributed.leave()


def here(checkpoint=None, epochs=3, every=2, sharding="ddp", device="cpu", timeout=60.0, **options):
    """The program in this process, the only worker; returns what the file then holds."""
    worker = distributed.Training(**OPTIONS | options)
    distributed.main(
        sharding=sharding, epochs=epochs, batch_size=worker.batch_size, lr=worker.lr, hidden=list(worker.hidden),
        data=worker.data, dtype=worker.dtype, seed=worker.seed, device=device, checkpoint=checkpoint, save_every=every,
        timeout=timeout,
    )  # fmt: skip
    return dict(np.load(checkpoint)) if checkpoint else None


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What a run of three epochs ends with."""
    return here(tmp_path_factory.mktemp("undisturbed") / "run.npz")


def assert_same_end(found, wanted, atol=0.0):
    """The same arrays but for rounding; `about` says which steps are done."""
    assert found.keys() == wanted.keys()
    assert str(found["about"]) == str(wanted["about"])
    for name in found.keys() - {"about"}:
        np.testing.assert_allclose(found[name], wanted[name], rtol=0, atol=atol, err_msg=name)


# The gates


@pytest.fixture(scope="module")
def reference():
    """One process, full batch, PyTorch alone."""
    return gates.in_one_process()


def test_all_engines_end_alike_and_planted_errors_are_noticed(tmp_path):
    printed = gates.launch("dlopt_course.app.gates", "--device=cpu", f"--out={tmp_path / 'ends.npz'}", timeout=300)
    lines = dict(re.findall(r"(.*?) +([\d.e+-]+  \w+)\n", printed))
    assert [line.split()[1] for line in lines.values()] == ["equal"] * 9 + ["noticed"] * 3
    with np.load(tmp_path / "ends.npz") as file:
        assert {name.split("/")[0] for name in file} == {gates.REFERENCE, *lines}
        assert {name.split("/")[1] for name in file} == {"0.weight", "0.bias", "2.weight", "2.bias"}


@pytest.mark.parametrize("change", [2e-12, -2e-12, np.nan, np.inf])
def test_the_gate_raises_above_its_limit(reference, change):
    assert gates.gate("itself", reference, reference) == 0
    wrong = reference["0.bias"].copy()
    wrong[3] += change
    with pytest.raises(AssertionError, match=r"0\.bias of some engine"):
        gates.gate("some engine", reference | {"0.bias": wrong}, reference)


def test_the_gate_wants_all_parameters(reference):
    with pytest.raises(AssertionError, match=r"some engine has 0\.weight, 0\.bias, 2\.weight, the reference"):
        gates.gate("some engine", {k: x for k, x in reference.items() if k != "2.bias"}, reference)


def test_an_error_that_is_not_noticed_is_an_error(reference):
    with pytest.raises(AssertionError, match="nothing was not noticed"):
        gates.noticed("nothing", reference, reference)


def of_the_mean_of_means(monkeypatch):
    real = parallel._part_gradient

    def planted(apply, both, params, x, y):
        value, grads = real(apply, both, params, x, y)
        factor = 673 / 2 / len(x) if len(x) > 1 else 1
        return value, {name: factor * g for name, g in grads.items()}

    monkeypatch.setattr(parallel, "_part_gradient", planted)


def of_a_missing_synchronisation(monkeypatch):
    real = parallel.Communicator.all_reduce

    def planted(comm, x, algorithm="ring"):
        return comm.size * x if x[-1] > 1 else real(comm, x, algorithm)  # x[-1]: the samples of this worker

    monkeypatch.setattr(parallel.Communicator, "all_reduce", planted)


def of_a_stale_shard(monkeypatch):
    real, seen = parallel.Communicator.all_gather, {}

    def planted(comm, part):
        return real(comm, seen.setdefault(comm.rank, part.copy()) if comm.rank == 1 else part)

    monkeypatch.setattr(parallel.Communicator, "all_gather", planted)


@pytest.mark.parametrize(
    ("plant", "stage"),
    [(of_the_mean_of_means, 0), (of_a_missing_synchronisation, 0), *[(of_a_stale_shard, stage) for stage in (1, 2, 3)]],
)
def test_errors_planted_in_numpy_are_noticed(reference, monkeypatch, plant, stage):
    plant(monkeypatch)
    with pytest.raises((AssertionError, RuntimeError), match="ZeRO|ended with different parameters"):
        gates.gate("ZeRO", gates.spread_by_course(2, stage=stage, processes=False), reference)


# Failures


def processes_with(mark):
    """Those that have this in their command line."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        if any(mark in word for word in process.info["cmdline"] or ()) and process.info["status"] != "zombie":
            found.append(process)
    return found


def wait_for(condition, seconds=120):
    """Until it holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.1)


def torchrun(plan, checkpoint, *options, restarts=0):
    """Two workers with planted failures; a process that is being run."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    program = [
        f"--max-restarts={restarts}",
        str(HERE / "failing_worker.py"),
        plan,
        *FLAGS,
        f"--checkpoint={checkpoint}",
    ]
    env = os.environ | {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    return subprocess.Popen(
        [*start, *program, *options], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_workers_that_die_or_hang(tmp_path, undisturbed, capfd):
    """Killed, torchrun starts them again from the checkpoint; then one hangs, which ends the run; one alone goes on."""
    checkpoint = tmp_path / "run.npz"
    with torchrun("kill,hang", checkpoint, "--sharding=fsdp2", "--timeout=10", restarts=1) as process:
        printed, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert re.search(r"exitcode: -9\) local_rank: 1", printed)
    assert printed.count("going on after step 2 of") == 1
    assert re.search(r"Root Cause(.|\n)*rank      : 0(.|\n)*[Tt]imed out", printed)
    assert not processes_with(str(checkpoint))
    assert_same_end(here(checkpoint), undisturbed, atol=1e-12)
    assert f"going on after step 4 of {checkpoint}" in capfd.readouterr().out


def test_what_a_worker_raises_is_left_for_torchrun(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    with pytest.raises(ValueError, match="sharding"):
        here(sharding="zero")
    told = (tmp_path / "error.json").read_text()
    assert "ValueError: sharding must be" in told
    assert "in spread" in told  # its traceback


def test_all_killed_in_mid_epoch(tmp_path, undisturbed, capfd):
    """torchrun is killed, so that nobody ends its workers; a worker alone goes on, in FSDP2 instead of DDP."""
    checkpoint = tmp_path / "run.npz"
    with torchrun("slow", checkpoint) as process:
        wait_for(checkpoint.exists)
        assert len(processes_with(str(checkpoint))) == 3
        process.send_signal(signal.SIGKILL)
        wait_for(lambda: not processes_with(str(checkpoint)))
        assert "torchrun is gone" in process.stdout.read()
    (tmp_path / ".run.npz.0.part").write_bytes(b"of a worker that was killed while it wrote")
    assert_same_end(here(checkpoint, sharding="fsdp2"), undisturbed, atol=1e-12)
    assert re.search(r"going on after step [24] ", capfd.readouterr().out)
    assert [p.name for p in tmp_path.iterdir()] == ["run.npz"]


def test_restarts_need_a_fresh_store(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "0")
    distributed.check_restarts()
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "1")
    with pytest.raises(ValueError, match="--max-restarts must be 0 unless .*STORE=1"):
        distributed.join("cpu", 5.0)


def test_a_worker_ends_without_torchrun(monkeypatch):
    monkeypatch.setattr(distributed, "PARENT", os.getppid() + 1)
    distributed.check_parent()  # alone it outlives the shell that started it
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with pytest.raises(SystemExit, match="torchrun is gone"):
        distributed.check_parent()
    monkeypatch.setattr(distributed, "PARENT", os.getppid())
    distributed.check_parent()


def test_launch_says_what_went_wrong():
    with pytest.raises(RuntimeError, match="no_such_module failed:\n(.|\n)*No module named"):
        gates.launch("no_such_module", workers=1)


def test_launch_ends_what_takes_too_long():
    with pytest.raises(subprocess.TimeoutExpired):
        gates.launch("never_begins_so_soon", timeout=0.2)
    assert not processes_with("never_begins_so_soon")


# One worker, in this process


def test_going_on_is_the_same_as_not_stopping(tmp_path, undisturbed):
    for epochs in (1, 2, 3, 3):
        end = here(tmp_path / "run.npz", epochs=epochs)
    assert_same_end(end, undisturbed)


@pytest.mark.parametrize("sharding", ["ddp", "fsdp2"])
def test_stopped_anywhere_it_ends_as_undisturbed(tmp_path, undisturbed, monkeypatch, sharding):
    real, left = distributed.step, [5]

    def planted(*given):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(distributed, "step", planted)
    for left[0] in (5, 3, 1, 99):
        if left[0] < 99:
            with pytest.raises(KeyboardInterrupt):
                here(tmp_path / "run.npz", sharding=sharding, every=1)
            distributed.leave()
    assert_same_end(here(tmp_path / "run.npz", sharding=sharding), undisturbed, atol=0 if sharding == "ddp" else 1e-12)


def test_the_file_is_read_without_pickle_and_fits_the_course(undisturbed):
    params = {name.removeprefix("params/"): x for name, x in undisturbed.items() if name.startswith("params/")}
    _, test = distributed.load(distributed.Training(**OPTIONS))
    scores, _ = MLP((64, 16, 10)).apply(params, test.x)
    assert (scores.argmax(axis=1) == test.y).mean() > 0.5
    assert all(x.dtype.kind in "fU" for x in undisturbed.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.1}, "lr 0.01, now 0.1"),
        ({"batch_size": 64, "seed": 3}, "batch_size 225, now 64; seed 0, now 3"),
        ({"hidden": (16, 8)}, r"hidden \[16\], now \[16, 8\]"),
        ({"data": "synthetic"}, "data 'digits', now 'synthetic'"),
    ],
)
def test_the_checkpoint_of_another_training_is_refused(tmp_path, undisturbed, options, message):
    path = tmp_path / "run.npz"
    np.savez(path, **undisturbed)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f"is of another training: {message}"):
        here(path, **options)
    assert path.read_bytes() == before


def of_fit(path):
    np.savez(path, about=np.frombuffer(b"{}", np.uint8), weight=np.zeros(3))


@pytest.mark.parametrize(
    "write",
    [
        of_fit,
        lambda path: write_atomic(path, b""),
        lambda path: write_atomic(path, b"PK\x03\x04 cut off"),
        lambda path: write_atomic(path, b"not an archive"),
        lambda path: np.savez(path, about="[1, 2]"),
        lambda path: np.savez(path, weight=np.array([None])),
    ],
)
def test_another_file_is_refused(tmp_path, write):
    path = tmp_path / "run.npz"
    write(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="run.npz must be a checkpoint of this program, or not exist"):
        here(path)
    assert path.read_bytes() == before


def test_a_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="must be a checkpoint of this program, or not exist"):
        here(tmp_path)


def test_what_is_not_finite_is_not_saved(tmp_path):
    path = tmp_path / "run.npz"
    with pytest.raises(FloatingPointError, match=r"not finite after step 2: params/0\.weight.* stays as it was"):
        here(path, lr=1e308)
    assert not path.exists()


def test_one_float32_worker_on_data_that_is_drawn(capfd):
    here(data="synthetic", dtype="float32", epochs=2, batch_size=512)
    printed = re.fullmatch(
        r"epoch 1: loss (\S+)\nepoch 2: loss (\S+)\n(\S+)% of 2048 test samples right\n", capfd.readouterr().out
    )
    assert float(printed[2]) < float(printed[1])
    assert float(printed[3]) > 30


def test_each_epoch_has_every_sample_once_in_its_own_order():
    training = distributed.Training(batch_size=7, seed=5)
    rows = list(distributed.batches(training, 24, 2))
    assert [len(r) for r in rows] == [7, 7, 7, 3] * 2
    first, second = np.concatenate(rows[:4]), np.concatenate(rows[4:])
    assert sorted(first) == sorted(second) == list(range(24))
    assert (first != second).any()
    np.testing.assert_array_equal(first, np.random.default_rng((5, 0)).permutation(24))


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_parts_make_the_batch(monkeypatch, workers):
    rows, parts = np.arange(5), []
    monkeypatch.setattr(dist, "get_world_size", lambda: workers)
    for rank in range(workers):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        parts.append(distributed.own(rows))
    assert [len(p) for p in parts] == [s.stop - s.start for s in parallel.partition(5, workers)]
    np.testing.assert_array_equal(np.concatenate(parts), rows)


def test_the_network_is_the_course_s():
    network = distributed.make_network((64, 16, 8, 10), 3, "float32")
    params = MLP((64, 16, 8, 10)).init(np.random.default_rng(3), np.float32)
    assert {k: tuple(p.shape) for k, p in network.state_dict().items()} == {k: p.shape for k, p in params.items()}
    x = np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32)
    ours, _ = MLP((64, 16, 8, 10)).apply(params, x)
    np.testing.assert_allclose(network(torch.from_numpy(x)).detach().numpy(), ours, rtol=0, atol=1e-6)


def test_a_gpu_for_each_worker(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert distributed.own_gpu() == 1
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="a GPU of its own, this machine has 2"):
        distributed.own_gpu()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "imagenet"}, "data must be one of .*imagenet"),
        ({"dtype": "float16"}, "dtype must be one of .*float16"),
        ({"batch_size": 0}, "batch-size must be .*0"),
        ({"hidden": (8, 0)}, "hidden must be .*0"),
        ({"sharding": "zero"}, "sharding must be one of .*zero"),
        ({"device": "tpu"}, "device must be one of .*tpu"),
        ({"lr": float("inf")}, "lr must be .*inf"),
        ({"timeout": -1.0}, "timeout must be .*-1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        here(**options)
