"""TuNet at the paper's size on one GPU: python -m benchmarks.gpu [--size 128 --filters 16].

Runs on any Keras backend; where TensorFlow is absent, set KERAS_BACKEND=jax. Each line is
measured in a process of its own, so that memory that one leaves is not counted for another.
Prints one table and writes book/results/gpu.csv.
"""

from __future__ import annotations

import csv
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

RESULT = Path(__file__).parents[1] / "book" / "results" / "gpu.csv"
EPOCHS, CASES, PATCHES_PER_CASE = 200, 168, 25  # of one training in the paper
PAPER_HOURS = 27  # a model, on a V100
STEPS = 12


@dataclass
class Line:
    """One measurement.

    Attributes
    ----------
    step_s
        Median time of a training step, or of one case for a prediction.
    tflops
        What the convolutions compute in that time, forward and backward.
    peak_gb
        Most memory of the GPU in use; blank where the backend does not tell.
    hours
        Projected for 200 epochs of 168 cases with 25 patches each.
    waiting
        Share of the time that the GPU waits for patches from disk.
    note
        An error, if it could not be measured.
    """

    by: str
    work: str
    precision: str
    batch: int
    step_s: float | None = None
    patches_per_s: float | None = None
    tflops: float | None = None
    peak_gb: float | None = None
    hours: float | None = None
    waiting: float | None = None
    note: str = ""


def count_flops(model: Any, size: int = 16) -> float:
    """Count the floating-point operations of all convolutions for each voxel of the input."""
    import keras
    import numpy as np

    flops = 0.0
    original = keras.layers.Conv3D.call

    def counted(layer: Any, inputs: Any) -> Any:
        nonlocal flops
        outputs = original(layer, inputs)
        flops += 2.0 * float(np.prod(layer.kernel.shape)) * float(np.prod(outputs.shape[:-1]))
        return outputs

    keras.layers.Conv3D.call = counted
    try:
        model(np.zeros((1, size, size, size, 1), np.float32))
    finally:
        keras.layers.Conv3D.call = original
    return flops / size**3


def measure_keras(precision: str, batch: int, size: int, filters: int) -> Line:
    """Measure training steps, and how long the GPU waits for patches."""
    import keras

    from tunet_lib.config import VARIANTS, Config
    from tunet_lib.patches import PatchDataset
    from tunet_lib.training import compiled

    variant = VARIANTS["tunet"]
    config = Config.preset(
        "paper",
        filters=filters,
        precision=precision,
        batch_size=batch,
        patch_shape=(size, size, size),
        patch_stride=(size // 4, size // 4, size // 4),
    )
    model = compiled(variant, config)
    flops = 3 * count_flops(model) * batch * size**3  # backward is two more of them
    image, truth = _batch(batch, size)
    line = Line(f"Keras, {keras.config.backend()}", "training step", precision, batch)
    step_s = _timed(lambda: float(model.train_on_batch(image, truth)))
    _fill(line, step_s, flops)
    line.peak_gb = _peak_gb(keras.config.backend())

    dataset = PatchDataset(_cases(config), variant, config, seed=(0,), workers=4)
    fed = [index for index in range(len(dataset)) for _ in range(3)][: 3 * STEPS]
    model.fit(_some(dataset, fed[:4]), verbose=0)
    start_s = time.perf_counter()
    model.fit(_some(dataset, fed), verbose=0)
    line.waiting = max(0.0, 1 - step_s * len(fed) / (time.perf_counter() - start_s))
    return line


def measure_prediction(size: int, filters: int) -> Line:
    """Measure one case through L-Net and TuNet, with all windows."""
    import keras
    import numpy as np

    from tunet_lib.config import VARIANTS, Config
    from tunet_lib.model import Model

    grid_shape = (size, 2 * size, 2 * size)
    config = Config.preset(
        "paper",
        filters=filters,
        grid_shape=grid_shape,
        lnet_shape=(size // 2, size, size),
        patch_shape=(size, size, size),
        patch_stride=(size // 4, size // 4, size // 4),
    )
    models = [Model.untrained(VARIANTS[name], config) for name in ("lnet", "tunet")]
    volume = np.random.default_rng(0).normal(size=grid_shape).astype(np.float32)

    def predict() -> None:
        for model in models:
            model.predict({False: volume})

    line = Line(f"Keras, {keras.config.backend()}", "prediction of a case", "float32", 1)
    line.step_s = _timed(predict, steps=3)
    line.peak_gb = _peak_gb(keras.config.backend())
    return line


def measure_torch(batch: int, size: int, filters: int) -> Line:
    """Measure the same network in PyTorch: compiled, bfloat16, channels last."""
    import torch

    from benchmarks import torch_net
    from tunet_lib.config import Config

    config = Config.preset("paper", filters=filters)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    layout = {"memory_format": torch.channels_last_3d}
    model = torch_net.TuNet(config).to(device).to(**layout)
    compiled_model: Any = torch.compile(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    image, truth = (
        torch.from_numpy(array).permute(0, 4, 1, 2, 3).to(device).contiguous(**layout)
        for array in _batch(batch, size)
    )

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16):
            prob = compiled_model(image)
        loss = torch_net.dice_loss(truth, prob.float())
        loss.backward()
        optimizer.step()
        return float(loss)

    line = Line("PyTorch, compiled, channels last", "training step", "bfloat16", batch)
    _fill(line, _timed(step), None)
    if device == "cuda":
        line.peak_gb = torch.cuda.max_memory_allocated() / 1e9
    return line


def measure_matrix_rate() -> Line:
    """Measure what the card does at best: a product of two large bfloat16 matrices."""
    import keras
    import numpy as np

    n = 8192
    array = keras.ops.cast(np.ones((n, n), np.float32), "bfloat16")

    def product() -> float:
        result = array
        for _ in range(10):
            result = keras.ops.matmul(result, array)
        return float(keras.ops.cast(result[0, 0], "float32"))

    line = Line(f"Keras, {keras.config.backend()}", "10 matrix products 8192", "bfloat16", 1)
    line.step_s = _timed(product)
    line.tflops = 10 * 2 * n**3 / line.step_s / 1e12
    return line


KINDS: dict[str, Callable[..., Line]] = {
    "keras": measure_keras,
    "prediction": measure_prediction,
    "torch": measure_torch,
    "matrix": measure_matrix_rate,
}


def main(
    size: Annotated[int, typer.Option(help="Sides of a patch.")] = 128,
    filters: Annotated[int, typer.Option(help="Of the first level.")] = 16,
    matrix: Annotated[bool, typer.Option(help="Measure the card's matrix rate.")] = True,
    one: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Measure everything, and write the table."""
    if one:
        kind, arguments = json.loads(one)
        print("\n" + json.dumps(asdict(KINDS[kind](**arguments))))
        return
    shape = {"size": size, "filters": filters}
    jobs: list[tuple[str, dict[str, Any]]] = [("matrix", {})] if matrix else []
    for precision in ("float32", "float16", "bfloat16"):
        jobs += [("keras", {"precision": precision, "batch": b, **shape}) for b in (1, 2, 4)]
    jobs += [("prediction", shape)]
    jobs += [("torch", {"batch": b, **shape}) for b in (1, 2, 4)]
    lines = []
    for kind, arguments in jobs:
        command = [sys.executable, "-m", "benchmarks.gpu", "--one", json.dumps([kind, arguments])]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            line = Line(kind, "", arguments.get("precision", ""), arguments.get("batch", 1))
            line.note = reason[:120]
        else:
            line = Line(**json.loads(done.stdout.strip().splitlines()[-1]))
        lines.append(line)
        print(asdict(line), flush=True)
    card = _card()
    with RESULT.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [*asdict(lines[0]), "card", "size", "filters"])
        writer.writeheader()
        for line in lines:
            writer.writerow({**asdict(line), "card": card, **shape})
    print(f"{card}; a training of the paper took {PAPER_HOURS} hours on a V100\n{RESULT}")


def _some(dataset: Any, indices: list[int]) -> Any:
    """Give a few batches of a dataset, prepared ahead by workers as in training."""
    import keras

    class Some(keras.utils.PyDataset):
        def __len__(self) -> int:
            return len(indices)

        def __getitem__(self, index: int) -> Any:
            return dataset[indices[index]]

    return Some(workers=4, max_queue_size=8)


def _cases(config: Any) -> Any:
    """Prepare a full-size phantom, so that patches come from disk."""
    from benchmarks.cases import FOLDER, full_size_case
    from tunet_lib.preprocess import prepare_cases

    prepared, failures = prepare_cases([full_size_case()], FOLDER / "prepared", config)
    assert not failures, failures
    return prepared


def _batch(batch: int, size: int) -> tuple[Any, Any]:
    import numpy as np

    rng = np.random.default_rng(0)
    image = rng.normal(size=(batch, size, size, size, 1)).astype(np.float32)
    return image, (rng.random((batch, size, size, size, 2)) > 0.9).astype(np.float32)


def _timed(step: Callable[[], Any], steps: int = STEPS) -> float:
    for _ in range(2):  # compiles
        step()
    times_s = []
    for _ in range(steps):
        start_s = time.perf_counter()
        step()
        times_s.append(time.perf_counter() - start_s)
    return statistics.median(times_s)


def _fill(line: Line, step_s: float, flops: float | None) -> None:
    line.step_s, line.patches_per_s = step_s, line.batch / step_s
    line.tflops = None if flops is None else flops / step_s / 1e12
    line.hours = EPOCHS * CASES * PATCHES_PER_CASE / line.patches_per_s / 3600


def _peak_gb(backend: str) -> float | None:
    if backend == "tensorflow":
        import tensorflow as tf

        if not tf.config.list_physical_devices("GPU"):
            return None
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 1e9
    if backend == "jax":
        import jax

        used = jax.local_devices()[0].memory_stats()
        return used["peak_bytes_in_use"] / 1e9 if used else None
    return None


def _card() -> str:
    try:
        query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
        done = subprocess.run(query, capture_output=True, encoding="utf-8", check=True)
        return done.stdout.strip().splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return f"no GPU ({os.cpu_count()} cores)"


if __name__ == "__main__":
    typer.run(main)
