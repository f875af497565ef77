"""In which order the tests run, and how the kernels of the notebooks start."""

import fcntl

import pytest


def pytest_collection_modifyitems(items):
    """Begin with what takes long, files that have a slow test, after the notebooks.

    Of two processes one would else wait for the other's last file.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path.suffix != ".ipynb", item.path not in slow))


class OneKernelAtATime:
    """Start one kernel after the other, also in several processes.

    Two that start at once may choose the same port, and then one of them dies
    (https://github.com/jupyter/jupyter_client/issues/487).
    """

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item):
        """Take a lock while a cell gets its kernel, which the first of a notebook waits for."""
        if item.path.suffix != ".ipynb":
            return (yield)
        with (item.config.cache.mkdir("kernels") / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return (yield)


def pytest_configure(config):
    """Make it hold for the notebooks as well, which lie in another folder."""
    config.pluginmanager.register(OneKernelAtATime())
