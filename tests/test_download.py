"""Downloads from a local server that does all that servers do wrong."""

import hashlib
import json
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from typer.testing import CliRunner

from tunet_lib import cli, download
from tunet_lib.download import download_kits19, label_digests, parse_cases
from tunet_lib.files import DataError

PAGE = b"<html>sign in</html>"


class Handler(BaseHTTPRequestHandler):
    """Serves `server.files`; `server.faults` holds, for a path, what to do wrong, in order."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server, path = self.server, self.path
        with server.lock:
            faults = server.faults.get(path, [])
            fault = faults.pop(0) if faults else None
            span = self.headers.get("Range")
            server.asked.append((path, span))
        if path not in server.files or fault == 404:
            return self.reply(404, b"not here")
        if fault in (429, 503):
            return self.reply(fault, b"later")
        if fault == "redirect":
            server.files[f"{path}?moved"] = server.files[path]
            return self.reply(302, b"", {"Location": f"{path}?moved"})
        body = server.files[path]
        if fault == "page":
            return self.reply(200, PAGE)
        if fault == "page without length":  # as of a proxy that asks for a password
            self.reply(200, PAGE, {"Content-Type": "text/html", "Content-Length": None})
            self.close_connection = True
            return None
        if fault == "wrong bytes":
            body = bytes(len(body))
        status, extra = 200, {}
        if span and fault != "no ranges":
            first = int(re.fullmatch(r"bytes=(\d+)-", span)[1])
            extra["Content-Range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
            body, status = body[first:], 206
        if fault in ("cut", "stall", "cut without length", "endless"):
            return self.reply_otherwise(status, body, extra, fault)
        return self.reply(status, body, extra)

    def reply(self, status, body, extra=None, send=True):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(extra or {})}.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        if send:
            self.wfile.write(body)

    def reply_otherwise(self, status, body, extra, fault):
        if fault in ("cut without length", "endless"):
            extra["Content-Length"] = None
        self.reply(status, body, extra, send=False)
        self.wfile.write(body + bytes(10_000_000) if fault == "endless" else body[: len(body) // 2])
        self.wfile.flush()
        if fault == "stall":
            self.server.stalled.wait(20)
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def server(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.files, server.faults, server.asked = {}, {}, []
    server.lock, server.stalled = threading.Lock(), threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    digests = {}
    for number in range(3):
        case_id = f"case_{number:05d}"
        label = case_id.encode() * 40_000
        server.files[f"/labels/{case_id}/segmentation.nii.gz"] = label
        digests[case_id] = (hashlib.sha256(label).hexdigest(), len(label))
    for number in (0, 1, 2, 250):
        server.files[image_url(number)] = f"image {number}".encode() * 70_000
    server.files["/labels/kits.json"] = json.dumps([{"case_id": "case_00000"}]).encode()
    monkeypatch.setattr(download, "label_digests", lambda: digests)
    list_images(server)
    settings = {
        "LABELS_URL": f"{server.url}/labels",
        "HUB_URL": server.url,
        "WAITS_S": (0,) * 6,
        "TIMEOUT_S": 0.5,
        "BLOCK": 1 << 14,
    }
    for name, value in settings.items():
        monkeypatch.setattr(download, name, value)
    yield server
    server.stalled.set()
    server.shutdown()
    server.server_close()


LABEL_URL = "/labels/case_00001/segmentation.nii.gz"
TREE_URL = f"/api/datasets/{download.IMAGES_REPOSITORY}/tree/main/images"


def image_url(number):
    return f"/datasets/{download.IMAGES_REPOSITORY}/resolve/main/images/case_{number:05d}.nii.gz"


def list_images(server):
    """Make the dataset repository's list of what it holds."""
    start = image_url(0).partition("images/")[0]
    entries = [{"type": "file", "path": "images/README.md", "size": 3, "oid": "0" * 40}]
    for url, body in server.files.items():
        if url.startswith(start):
            lfs = {"oid": hashlib.sha256(body).hexdigest(), "size": len(body), "pointerSize": 134}
            path = url.removeprefix(start)
            entries.append({"type": "file", "path": path, "size": len(body), "lfs": lfs})
    server.files[TREE_URL] = json.dumps(entries).encode()


def get(folder, cases=(0, 1), **options):
    return download_kits19(folder, cases, **options)


def files_in(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def size_of(files):
    return sum(len(body) for path, body in files.items() if path != "kits.json")


def expected(server, cases=(0, 1), images=True):
    files = {"kits.json": server.files["/labels/kits.json"]}
    for number in cases:
        case_id = f"case_{number:05d}"
        label = server.files.get(f"/labels/{case_id}/segmentation.nii.gz")
        if label:
            files[f"{case_id}/segmentation.nii.gz"] = label
        if images:
            files[f"{case_id}/imaging.nii.gz"] = server.files[image_url(number)]
    return files


def test_all_files_arrive_and_nothing_else_is_left(server, tmp_path):
    sizes, arrived = [], []
    assert get(tmp_path, on_size=sizes.append, on_bytes=arrived.append) == {}
    assert files_in(tmp_path) == expected(server)
    assert sizes == [sum(arrived)] == [size_of(expected(server))]
    assert not (tmp_path / download.PART_FOLDER).exists()


def test_what_is_there_is_not_fetched_again(server, tmp_path):
    get(tmp_path)
    server.asked.clear()
    assert get(tmp_path, cases=(0, 1, 2)) == {}
    assert files_in(tmp_path) == expected(server, cases=(0, 1, 2))
    assert {path for path, _ in server.asked} == {
        TREE_URL,
        "/labels/case_00002/segmentation.nii.gz",
        image_url(2),
    }


def test_labels_only(server, tmp_path):
    assert get(tmp_path, labels_only=True) == {}
    assert files_in(tmp_path) == expected(server, images=False)
    assert all("images" not in path for path, _ in server.asked)


def test_another_file_under_the_name_is_never_overwritten(server, tmp_path):
    mine = tmp_path / "case_00000" / "segmentation.nii.gz"
    mine.parent.mkdir()
    mine.write_bytes(b"my own annotation")
    failures = get(tmp_path)
    assert list(failures) == ["case_00000/segmentation.nii.gz"]
    assert "is another file" in failures["case_00000/segmentation.nii.gz"]
    assert files_in(tmp_path) == {
        **expected(server),
        "case_00000/segmentation.nii.gz": b"my own annotation",
    }


@pytest.mark.parametrize("fault", [503, 429, 404, "page", "page without length", "full"])
def test_a_good_part_outlives_a_busy_server_a_page_and_a_full_disk(server, tmp_path, fault):
    server.faults[LABEL_URL] = ["cut"] * 200
    get(tmp_path, labels_only=True)
    (part,) = (tmp_path / download.PART_FOLDER).iterdir()
    kept = part.read_bytes()
    assert kept
    server.faults[LABEL_URL] = [fault] * 200 if fault != "full" else []
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if fault == "full":  # the part cannot grow
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(kept), limits[1]))
    try:
        assert len(get(tmp_path, labels_only=True)) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert part.read_bytes() == kept
    server.faults.clear()
    assert get(tmp_path, labels_only=True) == {}
    assert files_in(tmp_path) == expected(server, images=False)


def test_a_test_case_has_no_label_map(server, tmp_path):
    assert get(tmp_path, cases=[250]) == {}
    assert files_in(tmp_path) == expected(server, cases=[250])


@pytest.mark.parametrize("url", [LABEL_URL, image_url(1)], ids=["label", "image"])
@pytest.mark.parametrize(
    "faults",
    [
        ["cut"],
        ["cut", "cut", "cut"],
        ["stall"],
        ["429", "429"],
        ["503"],
        ["page"],
        ["wrong bytes"],
        ["cut", "no ranges"],
        ["cut without length"],
        ["endless"],
        ["redirect"],
    ],
    ids=" ".join,
)
def test_a_passing_fault_is_overcome(server, tmp_path, url, faults):
    server.faults[url] = [int(fault) if fault.isdigit() else fault for fault in faults]
    arrived = []
    assert get(tmp_path, on_bytes=arrived.append) == {}
    assert files_in(tmp_path) == expected(server)
    assert sum(arrived) == size_of(expected(server))
    assert server.faults[url] == []


@pytest.mark.parametrize("url", [LABEL_URL, image_url(1)], ids=["label", "image"])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("page", "another size than announced"),
        ("wrong bytes", "wrong bytes (SHA-256)"),
        (404, "the server answered 404 Not Found"),
        (429, "the server answered 429 Too Many Requests"),
        ("cut", "there is no connection, or a bad one (ChunkedEncodingError)"),
        ("cut without length", "was cut short"),
        ("stall", "there is no connection, or a bad one (ConnectionError)"),
    ],
)
def test_a_lasting_fault_is_reported_and_stops_no_other_file(server, tmp_path, url, fault, reason):
    server.faults[url] = [fault] * 200
    failures = get(tmp_path)
    path = "case_00001/segmentation.nii.gz" if url == LABEL_URL else "case_00001/imaging.nii.gz"
    assert list(failures) == [path]
    assert reason in failures[path]
    whole = {k: v for k, v in files_in(tmp_path).items() if not k.startswith(download.PART_FOLDER)}
    assert whole == {k: v for k, v in expected(server).items() if k != path}


def test_an_image_that_is_not_there_is_reported(server, tmp_path):
    del server.files[image_url(1)]
    list_images(server)
    assert get(tmp_path) == {"case_00001/imaging.nii.gz": "is not in the dataset repository"}


def test_the_dataset_repository_may_be_busy_for_a_while(server, tmp_path):
    server.faults[TREE_URL] = [429, 503, "cut", "page"]
    assert get(tmp_path) == {}
    assert server.faults[TREE_URL] == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (PAGE, "JSONDecodeError"),
        (b'{"error": "down"}', "cannot be read"),
        (b'[{"path": "images/case_00000.nii.gz", "size": 3}]', "'lfs'"),
        (b'[{"path": "images/case_00000.nii.gz", "lfs": {"size": "big"}}]', "cannot be read"),
        (None, "the server answered 404 Not Found"),
    ],
)
def test_without_a_list_of_the_images_the_label_maps_still_arrive(server, tmp_path, answer, reason):
    server.files[TREE_URL] = answer
    if answer is None:
        del server.files[TREE_URL]
    failures = get(tmp_path)
    assert list(failures) == ["case_00000/imaging.nii.gz", "case_00001/imaging.nii.gz"]
    assert all(reason in text for text in failures.values())
    assert files_in(tmp_path) == expected(server, images=False)


@pytest.mark.parametrize("url", [LABEL_URL, image_url(1)], ids=["label", "image"])
def test_the_next_call_goes_on_within_the_file(server, tmp_path, url):
    server.faults[url] = ["cut"] * 200
    assert len(get(tmp_path)) == 1
    (part,) = (tmp_path / download.PART_FOLDER).iterdir()
    kept = part.stat().st_size
    assert 0 < kept < len(server.files[url])
    server.faults.clear()
    server.asked.clear()
    sizes = []
    assert get(tmp_path, on_size=sizes.append) == {}
    assert (url, f"bytes={kept}-") in server.asked
    assert sizes == [len(server.files[url]) - kept]
    assert files_in(tmp_path) == expected(server)


def test_a_listing_that_is_a_web_page_is_not_kept(server, tmp_path):
    server.files["/labels/kits.json"] = PAGE
    failures = get(tmp_path)
    assert list(failures) == ["kits.json"]
    assert "JSONDecodeError" in failures["kits.json"]
    assert not (tmp_path / "kits.json").exists()


def test_too_little_space_is_said_before_anything_is_fetched(server, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DataError, match=r"0\.0 GB are free; free some space"):
        get(tmp_path / "new")
    assert [path for path, _ in server.asked] == [TREE_URL]
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/data: cannot write here"):
        get(tmp_path / "file" / "data", labels_only=True)


@pytest.mark.parametrize("link", ["case_00001", "case_00001/segmentation.nii.gz", "part"])
def test_no_link_leads_a_file_out_of_the_folder(server, tmp_path, link):
    outside, folder = tmp_path / "outside", tmp_path / "data"
    outside.mkdir()
    sha256 = hashlib.sha256(server.files[LABEL_URL]).hexdigest()
    if link == "part":
        link = f"{download.PART_FOLDER}/case_00001-segmentation.nii.gz.{sha256[:12]}"
    place = folder / link
    place.parent.mkdir(parents=True)
    place.symlink_to(outside / "absent" if place.suffix else outside)
    failures = get(folder, labels_only=True)
    assert list(failures) == ["case_00001/segmentation.nii.gz"]
    assert "leads out of the folder" in failures["case_00001/segmentation.nii.gz"]
    assert place.is_symlink()
    assert list(outside.iterdir()) == []


def test_a_whole_file_may_lie_elsewhere(server, tmp_path):
    get(tmp_path, labels_only=True)
    label = tmp_path / "case_00001" / "segmentation.nii.gz"
    label.rename(tmp_path / "elsewhere")
    label.symlink_to(tmp_path / "elsewhere")
    server.asked.clear()
    assert get(tmp_path, labels_only=True) == {}
    assert server.asked == []


def test_ctrl_c_ends_it_at_once_and_keeps_what_has_come(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_S", 1.5)  # or a busy machine finds no CT at all
    server.faults[image_url(0)] = ["stall"]
    server.faults[image_url(2)] = [503] * 200
    main = threading.main_thread().ident

    def interrupt(_):
        begun = any((tmp_path / download.PART_FOLDER).glob("*imaging*"))  # no label map is cut
        if begun and not interrupted:
            interrupted.append(time.monotonic())
            signal.pthread_kill(main, signal.SIGINT)

    interrupted = []
    # A shell that starts the tests in the background lets them ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            get(tmp_path, cases=(0, 1, 2, 250), workers=1, on_bytes=interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - interrupted[0] < 3
    assert any((tmp_path / download.PART_FOLDER).iterdir())
    assert image_url(250) not in [path for path, _ in server.asked]
    server.faults.clear()
    assert get(tmp_path, cases=(0, 1, 2, 250)) == {}
    assert files_in(tmp_path) == expected(server, cases=(0, 1, 2, 250))


def test_requests_is_loaded_by_a_download_only():
    # Where pydicom is installed, nibabel loads it, and it loads requests.
    code = "import sys; sys.modules['pydicom'] = None; import tunet_lib.download, tunet_lib.check; "
    code += "print('requests' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    )
    assert run.stdout == "False\n"


def test_the_digests_of_all_label_maps_come_with_the_package():
    digests = label_digests()
    assert list(digests) == [f"case_{number:05d}" for number in range(210)]
    assert all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256, _ in digests.values())
    assert sum(size for _, size in digests.values()) == 65_409_835


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0-3", [0, 1, 2, 3]), ("7", [7]), ("5,1-2, 2", [1, 2, 5]), ("299", [299])],
)
def test_cases_are_read(text, numbers):
    assert parse_cases(text) == numbers


@pytest.mark.parametrize("text", ["", "x", "1-", "3-1", "300", "-1", "1,,2"])
def test_cases_that_make_no_sense(text):
    with pytest.raises(DataError, match="cases"):
        parse_cases(text)


def test_the_command(server, tmp_path):
    command = ["download", str(tmp_path / "data"), "--cases", "0-1"]
    done = CliRunner().invoke(cli.app, command)
    assert done.exit_code == 0
    assert "complete" in done.output
    assert files_in(tmp_path / "data") == expected(server)
    server.faults[image_url(2)] = [404] * 200
    failed = CliRunner().invoke(cli.app, [*command[:-1], "0-2"])
    assert failed.exit_code == 1
    assert "case_00002/imaging.nii.gz: the server answered 404" in failed.output
    assert "complete" not in failed.output


def test_without_a_network_it_is_said_soon(tmp_path, monkeypatch):
    """One file waits in vain, and not two hundred."""
    tried = []

    def refuse(url, **_):
        tried.append(url)
        raise requests.ConnectionError

    monkeypatch.setattr(requests, "get", refuse)
    monkeypatch.setattr(download, "WAITS_S", (0.01, 0.01))
    failures = download_kits19(tmp_path, range(200), labels_only=True, workers=2)
    assert len(failures) == 201
    assert len(tried) < 30
    assert failures["case_00199/segmentation.nii.gz"].startswith("was not tried: nobody answered")
