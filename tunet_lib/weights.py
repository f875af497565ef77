"""Weights on disk: Keras' HDF5 layout with a digest behind it, so that no flipped bit goes unseen.

HDF5 reads a file by the lengths in its head and does not look at what follows, so Keras, and
whatever else reads such files, opens these as any other.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tunet_lib.files import DataError, atomic_path, check_digest, with_digest


def write_weights(
    path: str | Path, network: Any, *, before: Callable[[], object] | None = None
) -> None:
    """Write the weights of a Keras network, atomically.

    Parameters
    ----------
    path
        Ends in ``.weights.h5``.
    network
        A built network.
    before
        As in `atomic_path`.

    Raises
    ------
    DataError
        The disk is full, or the folder cannot be written.
    """
    # HDF5 does not survive a full disk: it fails as it closes, or crashes. So it never sees one.
    buffer = _Buffer()
    if network.compiled:  # else Adam's memory goes into the file as well
        network = type(network)(network.inputs, network.outputs, name=network.name)
    network.save(buffer)
    with zipfile.ZipFile(buffer) as archive:
        content = archive.read("model.weights.h5")
    _write(Path(path), content, before)


def halve_weights(source: str | Path, target: str | Path) -> None:
    """Write weights anew as float16: the file is half as large, and they are read as float32.

    Raises
    ------
    DataError
        The source is missing or damaged; the disk is full, or the folder cannot be written.
    """
    try:
        content = Path(source).read_bytes()
        check_digest(content)
        halved = _halved(content)
    except (OSError, ValueError) as error:
        raise DataError(f"{source}: cannot be read as weights ({error})") from error
    _write(Path(target), halved)


def _halved(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(io.BytesIO(content)) as full, h5py.File(buffer, "w") as half:

        def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Dataset):
                half.create_dataset(name, data=item[()].astype(np.float16))
            else:
                half.require_group(name)
            half[name].attrs.update(item.attrs)

        full.visititems(copy)
    return buffer.getvalue()


def read_weights(path: str | Path, network: Any) -> None:
    """Read what `write_weights` wrote into a network of the same kind.

    A file without a digest, as Keras itself writes them, is taken as well.

    Raises
    ------
    DataError
        The file is missing, damaged, of another network, or holds numbers that are not finite.
    """
    try:
        check_digest(Path(path).read_bytes())
        _check_arrays(Path(path), network)
        with warnings.catch_warnings():
            # Keras warns of its own tables of layers, which hold no weights.
            warnings.simplefilter("ignore")
            network.load_weights(path)
        if not all(np.isfinite(array).all() for array in network.get_weights()):
            raise ValueError("it holds numbers that are not finite")
    except Exception as error:  # whatever HDF5 and Keras make of a damaged file
        # Keras goes on to print whole arrays.
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(
            f"{path}: cannot be read as the weights of {network.name} ({reason}); "
            "it is damaged or from another configuration; train again"
        ) from error


def _write(path: Path, content: bytes, before: Callable[[], object] | None = None) -> None:
    with atomic_path(path, before=before) as temporary:
        temporary.write_bytes(with_digest(content))


class _Buffer(io.BytesIO):
    """A file in memory. Keras chooses the format by what it takes for the name."""

    def __str__(self) -> str:
        return "model.keras"


def _check_arrays(path: Path, network: Any) -> None:
    """Compare sizes before anything is read: Keras passes over what a network has no place for."""
    sizes: list[int] = []

    def note(name: str, found: Any) -> None:
        if isinstance(found, h5py.Dataset) and "/vars/" in f"/{name}":
            sizes.append(found.size)

    with h5py.File(path) as file:
        file.visititems(note)
    expected = [int(np.prod(weight.shape)) for weight in network.weights]
    if len(sizes) != len(expected):
        raise ValueError(f"it holds {len(sizes)} arrays, the network {len(expected)}")
    if sorted(sizes) != sorted(expected):
        raise ValueError("its arrays have other sizes than the network's")
