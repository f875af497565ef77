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

__all__ = ["keras", "tf"]


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
# A keras.json in the user's home may name another backend, of other work, and another data format.
backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
collecting = gc.isenabled()
gc.disable()
with _no_stderr():
    try:
        import keras
    except (ImportError, ValueError) as error:
        raise DataError(
            f"Keras cannot be loaded with the backend {backend!r} ({error}); "
            "set the environment variable KERAS_BACKEND to tensorflow"
        ) from error

    keras.config.set_image_data_format("channels_last")
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
