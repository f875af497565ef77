"""Loading Keras without TensorFlow's notes about the machine."""

from __future__ import annotations

import logging
import os


def load_keras() -> None:
    """Load Keras and its backend, and leave out what TensorFlow writes to stderr meanwhile.

    TensorFlow reports on the CPU, and on GPUs that are not there, before it can be told
    not to. Python's own errors are raised as ever.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    stderr = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        import keras

        keras.ops.zeros(1)  # the first use has something to report, too
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            # Each network is compiled once, and TensorFlow takes many of them for a mistake.
            # It makes its logger late, and in a notebook with a level of its own.
            tf.get_logger().setLevel(logging.ERROR)
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
