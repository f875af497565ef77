"""The student's process: runs the cells of a paper, and calls functions in copies of itself.

It holds no test and no right answer. The judge asks, a line of JSON at a time: to run a cell, or
to call a function with arguments. A call runs in a fork of this process, so it sees everything as
it was when its question's cell had run, and what it breaks is broken for that call only.
"""

import ast
import asyncio
import builtins
import contextlib
import functools
import inspect
import json
import os
import re
import resource
import select
import signal
import sys
import time
import traceback
import types

GIGABYTE = 2**30
OUTWARD = {"os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen"}
OUTWARD |= {"socket.connect", "socket.sendto", "socket.getaddrinfo"}
INWARD = {"open", "os.listdir", "os.scandir", "os.link", "os.rename"}
IPYTHON = re.compile(
    r"^([ \t]*)(?:%{1,2}[A-Za-z].*|[!?].*|[\w.*%]+\?+[ \t]*|[\w, ]+=[ \t]*[%!].*)$", re.MULTILINE
)
BUILTIN_ERRORS = {name for name, thing in vars(builtins).items() if isinstance(thing, type)}


def main(folder, *packages):
    """Answer the judge until it says no more.

    Parameters
    ----------
    folder
        Holds this file and ``exchange.py``.
    packages
        Where NumPy and the like are. Nothing else is on the path, above all not `tunet_lib`.
    """
    sys.path += [folder, *packages]
    from exchange import decode, encode

    sys.path.remove(folder)
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    _limit()
    if "TUNET_REFUSE" in os.environ:
        _guard(os.environ.pop("TUNET_REFUSE").split("\n"))
    space, own = _namespace(), os.getpid()
    for line in questions:
        asked = json.loads(line)
        if "run" in asked:
            reply = _run(asked["run"], space)
        else:
            reply = _call(space.get(asked["call"]), asked, (decode, encode))
        _end_copies(own)
        answers.write(json.dumps(reply).encode() + b"\n")
        answers.flush()


def _end_copies(own):
    """End a copy that the student's code has made of this process: one answers."""
    if os.getpid() != own:
        os._exit(0)


def _limit():
    for what, most in (
        (resource.RLIMIT_AS, 4 * GIGABYTE),
        (resource.RLIMIT_FSIZE, GIGABYTE // 16),
        (resource.RLIMIT_CORE, 0),
    ):
        # macOS refuses a limit of memory below what it has mapped at the start, which is more.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(what, (most, most))


def _guard(hidden):
    """Refuse files, programs and the network from within Python, where the system cannot.

    Nothing in Python takes such a hook away again. A file may have several names, by another case
    or a link, and one number.
    """

    def number(path):
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return None
        return status.st_dev, status.st_ino

    numbers = {number(path) for path in hidden} - {None}

    def refuse(event, arguments):
        if event in OUTWARD:
            raise PermissionError(event)
        if event in INWARD and isinstance(arguments[0], str | bytes | os.PathLike):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            while number(path) not in numbers:
                path, below = os.path.dirname(path), path
                if path == below:
                    return
            raise PermissionError(event)

    sys.addaudithook(refuse)


def _namespace():
    """Make a module as a notebook has it, in which the library is its self-check and no more."""
    library, selfcheck = types.ModuleType("tunet_lib"), types.ModuleType("tunet_lib.selfcheck")
    library.__path__ = []
    library.selfcheck, selfcheck.check = selfcheck, lambda *_: None
    selfcheck.calls = lambda *_: []  # of the files with public values a paper sees none
    main_module = types.ModuleType("__main__")
    sys.modules |= {"tunet_lib": library, "tunet_lib.selfcheck": selfcheck}
    sys.modules["__main__"] = main_module
    shell = types.SimpleNamespace(
        system=lambda *_: None, run_line_magic=lambda *_: None, run_cell_magic=lambda *_: None
    )
    main_module.get_ipython, main_module.display = lambda: shell, lambda *_: None
    return vars(main_module)


def _run(source, space):
    try:
        try:
            code = _compiled(source)
        except SyntaxError:
            # Perhaps only for a line of IPython: !pip, %matplotlib, help?, files = !ls
            code = _compiled(IPYTHON.sub(r"\1pass", source))
        done = eval(code, space)
        if inspect.iscoroutine(done):
            asyncio.run(done)
    except BaseException as error:
        return _what(error)
    return {}


def _compiled(source):
    return compile(source, "<cell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def _call(function, asked, exchange):
    if not callable(function):
        return {"missing": True}
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read)
            if asked["driver"]:
                space = {}
                exec(asked["driver"], space)
                function = functools.partial(space["drive"], function)
            _answer_all(function, asked["cases"], write, exchange)
        finally:
            os._exit(0)
    os.close(write)
    lines = _read(read, len(asked["cases"]), asked["limit_s"])
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(read)
    return {"results": lines}


def _read(pipe, count, limit_s):
    """Read one answer after the other; stop where one takes too long, or no more come."""
    data, until = b"", time.monotonic() + limit_s
    while data.count(b"\n") < count:
        if not select.select([pipe], [], [], max(0, until - time.monotonic()))[0]:
            break
        some = os.read(pipe, 2**16)
        if not some:
            break
        if b"\n" in some:
            until = time.monotonic() + limit_s
        data += some
    return data.decode("utf-8", "replace").split("\n")[:-1]


def _answer_all(function, cases, write, exchange):
    (decode, encode), own = exchange, os.getpid()
    for case in cases:
        try:
            arguments = [decode(argument) for argument in case]
            answer = function(*arguments)
            reply = {"changed": _is_changed(arguments, case, encode)}
            try:
                reply["value"] = encode(answer)
            except (TypeError, ValueError):  # whose words name the student's own types
                reply["unfit"] = True
        except BaseException as error:
            reply = _what(error)
        _end_copies(own)
        line = json.dumps(reply).encode() + b"\n"
        while line:
            line = line[os.write(write, line) :]


def _is_changed(arguments, case, encode):
    try:
        return any(
            json.dumps(encode(now)) != json.dumps(before)
            for now, before in zip(arguments, case)  # noqa: B905
            if not (isinstance(before, dict) and "lazy" in before)
        )
    except (TypeError, ValueError):  # they hold what was never given
        return True


def _what(error):
    """Name an error and the line of the student's code. Its words could carry what is secret."""
    name = type(error).__name__
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == "<cell>"]
    line = frames[-1].lineno if frames else getattr(error, "lineno", None)
    return {"error": name if name in BUILTIN_ERRORS else "an exception", "line": line}


if __name__ == "__main__":
    main(*sys.argv[1:])
