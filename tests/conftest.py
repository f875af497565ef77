"""In which order the tests run."""


def pytest_collection_modifyitems(items):
    """Begin with what takes long, files that have a slow test, after the notebooks.

    Of two processes one would else wait for the other's last file.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path.suffix != ".ipynb", item.path not in slow))
