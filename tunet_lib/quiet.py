"""Keras without TensorFlow's notes about the machine: ``from tunet_lib.quiet import keras``.

TensorFlow reports on the CPU, and on GPUs that are not there, before it can be told not to.
Where it is Keras' backend, `tf` is TensorFlow itself.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import platform
from collections.abc import Iterator

from tunet_lib.files import DataError

__all__ = ["computing", "keras", "tf"]

PROCESS = os.getpid()


@contextlib.contextmanager
def computing() -> Iterator[None]:
    """Say in a sentence what Keras' backend says at length or not at all. Also a decorator.

    Raises
    ------
    DataError
        This process was forked from one that had loaded the backend, whose threads are not here.
    MemoryError
        The backend found no memory.
    """
    if os.getpid() != PROCESS:
        raise DataError(
            "this process was forked from one that computes with TensorFlow, and would wait "
            'forever; begin it by multiprocessing.get_context("spawn")'
        )
    try:
        yield
    except Exception as error:
        if "RESOURCE_EXHAUSTED" in str(error) or "ResourceExhausted" in type(error).__name__:
            raise MemoryError("not enough memory; a smaller batch size takes less") from error
        raise


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """Leave out what is written to stderr, also by libraries; exceptions are raised as ever."""
    try:
        stderr = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if platform.machine() in ("x86_64", "AMD64"):
    # TensorFlow takes oneDNN's convolutions by itself only where it finds AVX-512 VNNI or later.
    # With AVX2, as on many laptops, they take a quarter of the time of its own in 3D.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
if (limit := os.environ.get("TF_NUM_INTRAOP_THREADS", "")).strip().startswith("-"):
    # TensorFlow ends the process at a number below 0, and says why where nobody reads it.
    raise DataError(f"TF_NUM_INTRAOP_THREADS is {limit!r}, must be a number of threads")
# A keras.json in the user's home may be of other work: another backend, data format, precision.
backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
if backend not in ("tensorflow", "jax", "torch"):  # Keras has others, which cannot train
    raise DataError(
        f"Keras' backend {backend!r} cannot train; set the environment variable KERAS_BACKEND to "
        "tensorflow, or to jax or torch"
    )
collecting = gc.isenabled()
gc.disable()
with _no_stderr():
    try:
        import keras
    except (ImportError, ValueError, AttributeError) as error:
        advice = "set the environment variable KERAS_BACKEND to tensorflow"
        if backend == "tensorflow":
            advice = "look into keras.json in ~/.keras, or give it more memory"
        raise DataError(
            f"Keras cannot be loaded with the backend {backend!r} ({error}); {advice}"
        ) from error

    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    keras.ops.zeros(1)  # the first use has something to report, too
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # Each network is compiled once, and TensorFlow takes many of them for a mistake.
        # It makes its logger late, and in a notebook with a level of its own.
        tf.get_logger().setLevel(logging.ERROR)
        if not tf.config.list_physical_devices("GPU"):
            # To rewrite a graph takes a quarter of the time until the first step of a training,
            # and the convolutions, which are nearly all of the later ones, take as long as ever.
            tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
# What was loaded is there to stay. To look through it again and again for garbage, as Python
# would while networks are built and traced, takes a fifth of the time of a small prediction.
gc.freeze()
if collecting:
    gc.enable()
