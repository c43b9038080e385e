"""The simulation held against real processes and data on an emulated network: 2 to 16 workers, with a straggler too."""

from functools import partial
from statistics import median
from time import monotonic, sleep

import numpy as np

from benchmarks.measure import duration, wait_until_idle
from dlopt_course.parallel import (
    Network,
    TwoLevelNetwork,
    all_reduce_seconds,
    expected_maximum,
    hierarchical_rounds,
    rounds,
    run_workers,
    simulate_rounds,
    simulate_step,
)

CODE, PACKAGES = ("dlopt_course/core.py", "dlopt_course/parallel.py"), ("numpy",)
WORKERS = (2, 4, 8, 16)
SIZE, LATENCY, BANDWIDTH = 40_000, 10e-3, 10e6  # numbers of float64; seconds; bytes per second
DELAYS = (0.0, 0.1)  # seconds by which rank 1, the straggler, comes later than the others
NETWORK = Network(LATENCY, 1 / BANDWIDTH)
MACHINES = TwoLevelNetwork(Network(LATENCY / 2, 0.1 / BANDWIDTH), NETWORK, 2)  # two workers on each
ALGORITHMS = {
    "naive": "naive",
    "tree": "tree",
    "ring": "ring",
    "halving_doubling": "halving_doubling",
    "hierarchical": partial(hierarchical_rounds, group=MACHINES.group),
}
ROUNDS, TARGET, LEAD = 3, 0.1, 0.3  # samples, allowed relative error, seconds from a meeting to the common start

# Upwards, simulated only: a step of 0.2 s that spreads by 5%, and a gradient of 100 MB
MANY = {64: 30, 256: 30, 1024: 30, 4096: 1, 16384: 1}  # workers: replicates
COMPUTE, SPREAD, GRADIENT = 0.2, 0.05, 100_000_000
FAST = TwoLevelNetwork(Network(2e-6, 1 / 300e9), Network(5e-6, 1 / 50e9), 8)  # machines of 8; a ring uses `between`
LARGE = {"ring": ("ring", FAST.between), "hierarchical": (partial(hierarchical_rounds, group=FAST.group), FAST)}

ABOUT = f"""\
As many processes as the row says sum a vector of {SIZE * 8 // 1000} kB that each of them has, by the course's own
collectives on shared memory; each message arrives only {LATENCY * 1e3:g} ms plus its bytes at {BANDWIDTH / 1e6:g} MB/s
after it was sent. In the hierarchical rows two workers share a machine, inside which messages take half the latency
and a tenth of the time for bytes. In every second row rank 1 is late by {DELAYS[1] * 1e3:g} ms. Predicted: by
`simulate_rounds`, before measuring, from the network's numbers alone. Measured: from the common start until the last
worker has the sum, the median of {ROUNDS}. The target is an error of at most {TARGET:.0%}."""

NOTES = [
    "All sums are checked, on every worker: a time of a wrong sum would be no time.",
    "What is above the prediction is the processes' own: waking up (about 0.1 ms a round), copying, and taking turns "
    "on two cores. What is emulated is the network, not the computing: the workers sleep until a message is due.",
]


def network_of(name: str) -> Network | TwoLevelNetwork:
    "The network of an algorithm's rows."
    return MACHINES if name == "hierarchical" else NETWORK


def least(name: str) -> int:
    "The smallest number of workers for which the algorithm is one of its own: two levels need two machines."
    return 2 * MACHINES.group if network_of(name) is MACHINES else 2


def starts(workers: int, late: float) -> np.ndarray:
    "When each worker comes."
    return np.where(np.arange(workers) == 1, late, 0.0)


def predict(name: str, workers: int, late: float, size: int = SIZE) -> float:
    "Seconds until the last worker has the sum."
    plan = rounds(ALGORITHMS[name], workers, size)
    return float(simulate_rounds(plan, workers, 8, network_of(name), start=starts(workers, late)).max())


def work(comm, algorithms: list, size: int, repeats: int, lead: float) -> list:
    "For each algorithm, without and with a straggler, the seconds from the common start to this worker's end."
    mine = np.random.default_rng(comm.rank).standard_normal(size)
    total, seconds = sum(np.random.default_rng(r).standard_normal(size) for r in range(comm.size)), []
    for algorithm in algorithms:
        comm.all_reduce(mine, algorithm)  # the first one makes the plan
        seconds.append([[timed(comm, mine, total, algorithm, late, lead) for _ in range(repeats)] for late in DELAYS])
    return seconds


def timed(comm, mine: np.ndarray, total: np.ndarray, algorithm, late: float, lead: float) -> float:
    "Seconds from the common start to this worker's end."
    begin = float(comm.broadcast(np.array([monotonic() + lead]))[0])
    sleep(max(begin + starts(comm.size, late)[comm.rank] - monotonic(), 0))
    found = comm.all_reduce(mine, algorithm)
    seconds = monotonic() - begin
    np.testing.assert_allclose(found, total, rtol=1e-9, atol=1e-9)
    return seconds


def measure(names: list[str], workers: int, size: int, repeats: int, lead: float = LEAD) -> np.ndarray:
    "Seconds until the last worker has the sum: (algorithms, delays, repeats). All on one network."
    algorithms, options = [ALGORITHMS[name] for name in names], {"network": network_of(names[0]), "capacity": 8 * size}
    return np.max(run_workers(work, workers, algorithms, size, repeats, lead, **options), axis=0)


def upwards(many: dict[int, int]) -> list[dict]:
    "Simulated steps of many workers beside the closed form: computing of the slowest, then the all-reduce."
    found = []
    for workers, replicates in many.items():
        for name, (algorithm, network) in LARGE.items():
            options = {"algorithm": algorithm, "spread": SPREAD, "replicates": replicates}
            step = simulate_step(workers, COMPUTE, GRADIENT, network, rng=np.random.default_rng(workers), **options)
            closed = COMPUTE * (1 + SPREAD * expected_maximum(workers))
            closed += all_reduce_seconds(name, workers, GRADIENT, network)
            case = {"algorithm": name, "workers": workers, "replicates": replicates, "mean": step.mean}
            interval = list(step.interval) if replicates > 1 else None
            found.append(case | {"interval": interval, "closed_form": closed, "efficiency": step.efficiency})
    return found


def told_upwards(cases: list[dict]) -> str:
    "The simulated steps in a sentence."
    each = [
        f"{c['workers']:,} workers, {c['algorithm']}: {duration(c['mean'])}"
        + (f" ({duration(c['interval'][0])} to {duration(c['interval'][1])})" if c["interval"] else " (one replicate)")
        + f", closed form {duration(c['closed_form'])}"
        for c in cases
    ]
    return (
        f"Simulated, not measured: a step of {COMPUTE:g} s computing, whose standard deviation is {SPREAD:.0%}, and a "
        f"gradient of {GRADIENT // 10**6} MB at 50 GB/s and 5 µs between machines, mean and 95% interval. "
        + "; ".join(each)
        + "."
    )


def run(
    counts: tuple = WORKERS, names: tuple = tuple(ALGORITHMS), size: int = SIZE, repeats: int = ROUNDS, many=MANY
) -> dict:
    "Predict, then measure, every case."
    cases = [(name, p) for name in names for p in counts if p >= least(name)]
    predicted = {(*case, late): predict(*case, late, size) for case in cases for late in DELAYS}
    wait_until_idle()
    flat, found = [name for name in names if network_of(name) is NETWORK], {}
    for together in [flat, *([name] for name in names if name not in flat)]:
        for workers in [p for p in counts if together and p >= least(together[0])]:
            seconds = measure(together, workers, size, repeats).tolist()
            for name, of_name in zip(together, seconds, strict=True):
                found |= {(name, workers, late): x for late, x in zip(DELAYS, of_name, strict=True)}
    samples = [sample(case, told, found[case]) for case, told in predicted.items()]
    columns = ["All-reduce", "Workers", "Straggler", "Predicted", "Measured", "Error"]
    worst = max(abs(case["error"]) for case in samples)
    told = f"The largest error is {worst:.1%}: the target of {TARGET:.0%} is {'met' if worst <= TARGET else 'missed'}."
    result = {"title": "The simulation against an emulated network", "about": ABOUT, "columns": columns}
    raw = {"samples": samples, "simulated": upwards(many)}
    notes = [told, *NOTES, told_upwards(raw["simulated"])]
    return result | {"rows": [row(case) for case in samples], "notes": notes, "raw": raw}


def sample(case: tuple, predicted: float, seconds: list[float]) -> dict:
    "A case with its samples."
    error = predicted / median(seconds) - 1
    return dict(zip(("algorithm", "workers", "late"), case, strict=True)) | {
        "predicted": predicted,
        "seconds": seconds,
        "error": error,
    }


def row(case: dict) -> list:
    "A case as the table shows it."
    times = [duration(case["predicted"]), duration(median(case["seconds"]))]
    late = duration(case["late"]) if case["late"] else "none"
    return [case["algorithm"], case["workers"], late, *times, f"{case['error']:+.1%}".replace("-", "−")]
