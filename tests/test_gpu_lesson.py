"""What lesson 10 says in numbers: recorded on the CPU, calculated by hand, or of the widget."""

import json
import math
import re
from functools import partial
from statistics import median

import numpy as np
import pytest
from lessons import ROOT, read, source

from dlopt_course.gpu import BFLOAT16, FLOAT16, cost_of, find_device, from_bits, to_bits, transformer_operations

LESSON = read(ROOT / "nbs/10_gpu.ipynb")
cell = partial(source, LESSON)
H100 = find_device("NVIDIA H100 80GB HBM3")


@pytest.fixture(scope="module")
def recording() -> dict:
    "That of this processor's limits."
    return json.loads((ROOT / "benchmarks/results/cpu_limits.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def raw(recording) -> dict:
    "Its samples."
    return recording["raw"]


@pytest.fixture(scope="module")
def recorded() -> dict:
    "The literals of the lesson."
    names = {}
    exec(cell("cpu-recorded").partition("# end of the recorded figures")[0], names)
    return names


def three(x: float) -> float:
    "Three digits."
    return float(f"{x:.3g}")


def test_the_figures_of_the_cpu_say_where_they_come_from(recording, recorded):
    assert recorded["recorded_on"] == f"{recording['date']}, {recording['machine']}"


def test_the_ceilings_of_the_cpu_are_those_recorded(raw, recorded):
    assert recorded["recorded_unit"] == raw["bfloat16"]
    assert [recorded["recorded_copy"]] == [three(m["gigabytes_per_second"]) for m in raw["memory"] if m["threads"] == 1]
    found = {(m["size"], m["dtype"]): three(m["gigaflops"]) for m in raw["matmul"] if m["threads"] == 1}
    pairs = {size: (found[size, "float32"], found[size, "bfloat16"]) for size, _ in found}
    assert recorded["recorded_products"] == pairs
    if raw["bfloat16"] == "amx_bf16":  # "several times as fast", says the text
        assert all(half / single > 2 for single, half in pairs.values())


def test_what_compiling_costs_is_what_was_recorded(raw, recorded):
    assert recorded["recorded_compile"] == {
        c["name"]: (
            three(c["cold_seconds"]),
            three(1e3 * median(c["eager"])),
            three(1e3 * median(c["compiled"])),
            c["calls_to_break_even"] and round(c["calls_to_break_even"]),
        )
        for c in raw["compile"]
    }


def test_by_hand_intensities():
    text, small = cell("hierarchy-message"), cost_of("linear", (2, 3), (4, 3))
    assert (small.operations, small.bytes, round(small.intensity, 2)) == (48, 104, 0.46)
    for words in ("$2 \\cdot 24 = 48$ operations", "$4\\,(6 + 12 + 8) = 104$ bytes, $I = 0.46$"):
        assert words in text
    ridge = H100.peaks["bfloat16"] / H100.bandwidth
    assert f"= {ridge:.0f}$ operations per byte" in text
    assert f"$n > {3 * 295:.0f}$" in text
    seconds = 28 * 124e6 / H100.bandwidth
    assert f"that is {seconds * 1e3:.2f} ms on an H100, with {cost_of('adamw', (1,)).operations} operations" in text


def test_by_hand_launches():
    text = cell("idea-launch")

    def total(kernels, launch, work):
        return launch + (kernels - 1) * max(launch, work) + work

    assert f"{total(1000, 5, 20) / 1000:.3f} ms, the GPU never waits" in text
    assert f"{total(1000, 5, 2) / 1000:.3f} ms, of which the GPU works 2" in text
    assert f"= {H100.bandwidth * H100.launch / 1e6:.0f}$ MB" in text
    copies = cell("checkpoint-message") + cell("idea-step")
    assert f"become {total(100, 4, 10) / 1000:.3f} s, {100 * 14 / total(100, 4, 10):.2f} times as fast" in copies


def test_by_hand_formats():
    formats, rounding = cell("idea-formats"), cell("formats-message")
    for bits, form in (("0011010101010101", FLOAT16), ("0011111010101011", BFLOAT16)):
        fields = f"{bits[0]} {bits[1 : 1 + form.exponent_bits]} {bits[1 + form.exponent_bits :]}"
        value = from_bits(np.array([int(bits, 2)], np.uint16), form)[0]
        assert f"`{fields}`" in formats
        assert f"= {value:.5f}$" in formats
        assert to_bits(np.float32([1 / 3]), form)[0] == int(bits, 2)
    for number, whole in ((1 + 2**-8, 0x3F80), (1 + 3 * 2**-8, 0x3F82)):
        stored = f"{np.float32(number).view(np.uint32):08X}"
        assert f"`{stored[:4]} {stored[4:]}`" in rounding
        assert to_bits(np.float32([number]), BFLOAT16)[0] == whole
    assert "from 65,520 on" in rounding
    edge = np.float32([65520, np.nextafter(np.float32(65520), np.float32(0))])
    assert np.isinf(from_bits(to_bits(edge, FLOAT16), FLOAT16)).tolist() == [True, False]


def test_by_hand_a_whole_step():
    text = cell("step-operations")
    a_token = transformer_operations(540_000_000_000, 118, 48 * 256, 2048)
    assert math.isclose(a_token, 3.24e12 + 0.036e12, rel_tol=1e-3)
    assert f"${a_token * 238_300 / 1e18:.3f} \\cdot 10^{{18}}$ a second" in text
    assert f"of ${6144 * 275e12 / 1e18:.3f} \\cdot 10^{{18}}$" in text
    assert f"That is {100 * a_token * 238_300 / (6144 * 275e12):.1f} percent" in text


def test_the_answer_of_the_widget():
    text = cell("roofline-answer")

    def rows(ridge, itemsize, width=4096):
        return math.ceil(1 / (2 / (itemsize * ridge) - 2 / width))

    ridges = H100.peaks["float16"] / H100.bandwidth, H100.peaks["float32"] / H100.bandwidth
    assert f"from {rows(ridges[0], 2)} rows on" in text
    assert f"from {rows(ridges[1], 4)} rows on" in text
    assert round(ridges[0] / ridges[1]) == 15


def test_parameters_of_gpt_2():
    arrays = 12 * 12 + 4  # two norms and four linear layers with biases in each block; two embeddings, the last norm
    assert f"8 * {arrays}" in cell("answer-plot")
    assert f"over {arrays} arrays" in cell("answer")


def test_no_backslash_is_doubled():
    for c in LESSON.cells:
        if c.cell_type == "markdown":
            assert not re.search(r"\\\\[a-zA-Z,]", c.source), c.id
