"""Remote objects, against servers on this machine: S3 and Google of its own, and a web server with faults."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import logging
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from subprocess import PIPE

import h5py
import numpy as np
import pytest

import unoic_cli
from unoic_cli import cli, formats, urls
from unoic_cli.errors import DataError, NoInputError, StorageError
from unoic_cli.storage import objects, reasons

USAGE, DATA, NO_INPUT, CANNOT_CREATE, STORAGE = 2, 65, 66, 73, 74
SECRET = "MyVerySecretKey"
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Logits in every form that is read in a way of its own."""
    place = tmp_path_factory.mktemp("files")
    rows = {"logits": RNG.normal(size=(900, 5)).astype("f4"), "labels": RNG.integers(0, 5, 900)}
    planes = {"logits": RNG.normal(size=(7, 4, 30, 20)).astype("f2"), "labels": RNG.integers(0, 4, (7, 30, 20))}
    text = {"split": ["a", "b", "a"] * 300, "source_counts": [9, 7, 5, 3, 1]}
    with h5py.File(place / "rows.h5", "w") as file:
        for name, values in (rows | text).items():
            file[name] = values
    with h5py.File(place / "planes.h5", "w") as file:
        for name, values in planes.items():
            file[name] = values
    with h5py.File(place / "chunks.h5", "w") as file:
        group = file.create_group("val")
        group.create_dataset("logits", data=planes["logits"], chunks=(2, 4, 16, 20), compression="gzip")
        group.create_dataset("labels", data=planes["labels"], chunks=(1, 30, 20))
    unoic_cli.convert(place / "rows.h5", place / "rows.parquet")
    unoic_cli.convert(place / "planes.h5", place / "planes.parquet")
    unoic_cli.convert(place / "rows.h5", place / "rows.arrows")
    return place


NAMES = ["rows.h5", "planes.h5", "chunks.h5::val", "rows.parquet", "planes.parquet"]


@pytest.fixture
def run(capfd):
    def runner(*args):
        code = cli.run([str(arg) for arg in args])
        out, err = capfd.readouterr()
        assert SECRET not in out + err
        return code, out, err

    return runner


# ------------------------------------------------------------------------------------------------
# S3


@pytest.fixture(scope="module")
def s3(files):
    """A bucket with the files, on an S3 of this process."""
    server = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("flask_cors")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        threaded = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        threaded.start()
        try:
            url = f"http://127.0.0.1:{threaded.get_host_and_port()[1]}"
            patch.setenv("AWS_ENDPOINT_URL", url)
            client = boto3.client("s3", endpoint_url=url, region_name="us-east-1")
            client.create_bucket(Bucket="bucket")
            for path in sorted(files.iterdir()):
                client.upload_file(str(path), "bucket", f"some/{path.name}")
            yield client
        finally:
            threaded.stop()


@pytest.mark.parametrize("name", NAMES)
def test_s3_equals_local(s3, files, run, name):
    remote, local = f"s3://bucket/some/{name}", f"{files}/{name}"
    for command in (("info",), ("evaluate",), ("search-lambda", "--folds", "2")):
        code, out, err = run(command[0], remote, *command[1:])
        assert code == 0, err
        plain = run(command[0], local, *command[1:])[1]
        if command[0] != "info":
            out, plain = out.replace(remote, "FILE"), plain.replace(local, "FILE")
            assert out == plain
    suffix = ".parquet" if "parquet" in name else ".h5"
    digests = set()
    calibration = unoic_cli.search_lambda(local, source_prior="labels").calibration
    for source in (remote, local):
        result = unoic_cli.calibrate(source, output=f"out{suffix}", calibration=calibration, force=True)
        assert result.n_units
        digests.add(hashlib.sha256(pathlib.Path(f"out{suffix}").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_shards_of_remote_objects(s3, files, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    remote = f"s3://bucket/some/{NAMES[0]}"
    whole = run("evaluate", remote)[1]
    for i in (1, 2):
        code, _, err = run("evaluate", remote, "--shard", f"{i}/2", "--state", f"{i}.unoic")
        assert code == 0, err
    assert run("report", "2.unoic", "1.unoic")[1] == whole
    assert run("pack", remote, "packed.h5")[0] == 0


@pytest.mark.parametrize("name", NAMES)
def test_spans_of_remote_objects(s3, files, monkeypatch, name):
    source = formats.describe(f"s3://bucket/some/{name}")
    local = formats.describe(f"{files}/{name}")
    assert len(formats.spans(source, 100)) < len(formats.spans(local, 100)) or "parquet" in name
    monkeypatch.setattr(objects, "SPAN_BYTES", 1)
    monkeypatch.setattr(objects, "IMAGE_BYTES", 1)
    assert formats.spans(source, 100) == formats.spans(local, 100)
    plain = unoic_cli.evaluate(local, confusion=True).confusion
    found = unoic_cli.evaluate(source, confusion=True).confusion
    np.testing.assert_array_equal(found, plain)


def test_split_and_groups(s3, files):
    remote = unoic_cli.evaluate("s3://bucket/some/rows.h5", split="a").to_dict()
    local = unoic_cli.evaluate(f"{files}/rows.h5", split="a").to_dict()
    assert {**remote, "files": 0} == {**local, "files": 0}


def test_patterns_on_s3(s3, files, run, refuse):
    for key in ("many/v10.h5", "many/v9.h5", "many/deep/er/v1.h5"):
        s3.upload_file(str(files / "rows.h5"), "bucket", key)

    def found(*names):
        code, out, err = run("prior", *names)
        assert code == 0, err
        return [name.removeprefix("s3://bucket/many/") for name in json.loads(out)["files"]]

    assert found("s3://bucket/many/*.h5") == ["v9.h5", "v10.h5"]
    assert found("s3://bucket/many/**/*.h5") == ["deep/er/v1.h5", "v9.h5", "v10.h5"]
    assert found("s3://bucket/many/**/v1.h5") == found("s3://bucket/*/deep/*/v1.h5") == ["deep/er/v1.h5"]
    assert found("s3://bucket/many/v?.h5?region=us-east-1") == ["v9.h5"]
    assert found("s3://bucket/many/v[0-8]*.h5") == ["v10.h5"]
    s3.upload_file(str(files / "rows.h5"), "bucket", "odd/v*.h5")
    s3.upload_file(str(files / "rows.h5"), "bucket", "odd/v1.h5")
    assert found("s3://bucket/odd/v*.h5") == ["s3://bucket/odd/v*.h5"]
    pathlib.Path("list.txt").write_text("s3://bucket/many/v9.h5\ns3://bucket/many/v1*.h5\n")
    assert found("@list.txt") == ["v9.h5", "v10.h5"]
    assert found("s3://bucket/some/chunks*.h5::val") == ["s3://bucket/some/chunks.h5::val"]
    assert "no file matches" in refuse(NO_INPUT, "prior", "s3://bucket/many/x*.h5")
    assert "no file matches" in refuse(NO_INPUT, "prior", "s3://nobucket/*.h5")
    assert "the same data as" in refuse(USAGE, "prior", "s3://bucket/many/v9.h5", "s3://bucket/many/v9*.h5")


def test_modalities_and_priors_on_s3(s3, files, run):
    code, out, err = run(
        "evaluate", "rgb=s3://bucket/some/rows.h5", f"depth={files}/rows.parquet",
        "--lambda", "1", "--source-prior", "s3://bucket/some/rows.parquet",
    )  # fmt: skip
    assert code == 0, err
    plain = run(
        "evaluate", f"rgb={files}/rows.h5", f"depth={files}/rows.parquet",
        "--lambda", "1", "--source-prior", f"{files}/rows.parquet",
    )[1]  # fmt: skip
    assert out.replace("s3://bucket/some", str(files)) == plain


def test_what_is_not_there(s3, refuse, monkeypatch):
    assert "no such object" in refuse(NO_INPUT, "evaluate", "s3://bucket/some/none.h5")
    assert "no such bucket nobucket" in refuse(NO_INPUT, "evaluate", f"s3://key:{SECRET}@nobucket/rows.h5")
    assert "no such object" in refuse(NO_INPUT, "evaluate", "s3://bucket/some")
    assert "no object named" in refuse(NO_INPUT, "info", "s3://bucket")
    s3.put_object(Bucket="bucket", Key="text.h5", Body=b"logits")
    s3.put_object(Bucket="bucket", Key="empty.h5", Body=b"")
    s3.put_object(Bucket="bucket", Key="x.npz", Body=b"PK\x03\x04....")
    assert "unknown first bytes" in refuse(DATA, "evaluate", "s3://bucket/text.h5")
    assert "an empty file" in refuse(DATA, "evaluate", "s3://bucket/empty.h5")
    assert "a remote npz file" in refuse(DATA, "convert", "s3://bucket/x.npz", "out.h5")
    assert "a remote Arrow stream" in refuse(DATA, "evaluate", "s3://bucket/some/rows.arrows")
    assert "--allow-external" in refuse(USAGE, "evaluate", "s3://bucket/some/rows.h5", "--allow-external")
    assert "no group /none" in refuse(DATA, "evaluate", "s3://bucket/some/rows.h5::none")
    assert "a group of a parquet" in refuse(USAGE, "evaluate", "s3://bucket/some/rows.parquet::none")
    assert "a remote place" in refuse(CANNOT_CREATE, "convert", "s3://bucket/some/rows.h5", "s3://bucket/out.h5")
    for name in ("rows.h5", "rows.parquet"):
        whole = s3.get_object(Bucket="bucket", Key=f"some/{name}")["Body"].read()
        s3.put_object(Bucket="bucket", Key=f"cut/{name}", Body=whole[: len(whole) // 2])
        assert f"s3://bucket/cut/{name}" in refuse(DATA, "evaluate", f"s3://bucket/cut/{name}")


def test_objects_for_everyone(s3, files, run, refuse):
    name = "s3://bucket/open.h5?anonymous=true"
    s3.upload_file(str(files / "rows.h5"), "bucket", "open.h5")
    assert "access denied" in refuse(NO_INPUT, "evaluate", name)
    s3.put_object_acl(Bucket="bucket", Key="open.h5", ACL="public-read")
    assert run("evaluate", name)[0] == 0


def test_a_dead_endpoint_is_refused_soon(s3, refuse, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{taken.getsockname()[1]}")
        objects._s3_system.cache_clear()
        began = time.monotonic()
        assert "the server cannot be reached" in refuse(NO_INPUT, "evaluate", "s3://bucket/some/rows.h5")
        assert "cannot be listed (the server cannot be reached)" in refuse(NO_INPUT, "evaluate", "s3://bucket/some/*")
        assert time.monotonic() - began < 30
    objects._s3_system.cache_clear()


@pytest.mark.parametrize("name", ["rows.h5", "rows.parquet"])
def test_an_object_that_changes(s3, files, name):
    s3.upload_file(str(files / name), "bucket", f"changing/{name}")
    source = formats.describe(f"s3://bucket/changing/{name}")
    reader = formats.open_reader(source)
    s3.put_object(Bucket="bucket", Key=f"changing/{name}", Body=(files / name).read_bytes()[:-1] + b"!")
    with pytest.raises(DataError, match="changed while it was in use"):
        formats.open_reader(source)
    s3.put_object(Bucket="bucket", Key=f"changing/{name}", Body=b"short")
    if name == "rows.h5":
        with pytest.raises(DataError, match="changed while it was in use"):
            list(reader.blocks(100, 200, frozenset({"scores"})))
    reader.close()
    s3.delete_object(Bucket="bucket", Key=f"changing/{name}")
    with pytest.raises(NoInputError, match="no such object"):
        formats.open_reader(source)


@pytest.mark.parametrize("name", ["rows.h5", "rows.parquet"])
@pytest.mark.parametrize("command", ["evaluate", "calibrate", "convert"])
def test_an_object_that_changes_unseen(s3, files, refuse, monkeypatch, name, command):
    data = bytearray((files / name).read_bytes())
    s3.put_object(Bucket="bucket", Key=name, Body=bytes(data))
    data[len(data) // 2] ^= 1
    read = objects.RemoteFile.read

    def read_and_change(self, *given):
        found = read(self, *given)
        if state["reads"] == 2:  # the first bytes, and the description
            s3.put_object(Bucket="bucket", Key=name, Body=bytes(data))
        state["reads"] += 1
        return found

    state = {"reads": 0}
    monkeypatch.setattr(objects.RemoteFile, "read", read_and_change)
    more = {"calibrate": ("--lambda", "1", "-o", "out.h5"), "convert": ("out.h5",)}.get(command, ())
    said = refuse(DATA, command, f"s3://bucket/{name}", *more)
    assert "changed while it was in use" in said
    assert os.listdir() == []


def test_locators_stay_in_the_source(s3):
    source = formats.describe(f"s3://testing:{SECRET}@bucket/some/rows.h5")
    assert source.name == "s3://bucket/some/rows.h5"
    found = unoic_cli.search_lambda(f"s3://testing:{SECRET}@bucket/some/rows.h5")
    assert SECRET not in json.dumps(found.to_dict())


def test_where_pyarrow_has_no_s3(s3, files, monkeypatch):
    pytest.importorskip("s3fs")

    def lacking(url):
        raise KeyError(url)

    monkeypatch.setattr(objects, "_arrow_system", lacking)
    for name in ("rows.h5", "rows.parquet"):
        remote = unoic_cli.evaluate(f"s3://bucket/some/{name}").to_dict()
        assert {**remote, "files": 0} == {**unoic_cli.evaluate(f"{files}/{name}").to_dict(), "files": 0}
    with pytest.raises(NoInputError, match="no such object"):
        formats.describe("s3://bucket/some/none.h5")


def test_many_objects(s3, files, refuse):
    for i in range(20):
        s3.upload_file(str(files / "rows.parquet"), "bucket", f"shards/{i}.parquet")
    found = unoic_cli.prior("s3://bucket/shards/*.parquet")
    assert found.files == tuple(f"s3://bucket/shards/{i}.parquet" for i in range(20))
    assert found.n == 20 * 900
    names = [f"s3://bucket/shards/{i}.parquet" for i in (1, 77, 2, 99)]
    assert "shards/77.parquet: no such object" in refuse(NO_INPUT, "prior", *names)


# ------------------------------------------------------------------------------------------------
# the web


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves a folder, with the fault that the first part of the path names."""

    protocol_version = "HTTP/1.1"
    folder = pathlib.Path()
    faults: dict[str, int] = {}  # noqa: RUF012

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.status(403)  # as signed addresses for GET alone

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body):
        fault, _, name = self.path.partition("?")[0].strip("/").partition("/")
        path = self.folder / name
        if fault == "denied":
            return self.status(403)
        if fault == "login" and self.headers.get("Authorization") is None:
            return self.status(401)
        if not path.is_file():
            return self.status(404)
        data = path.read_bytes()
        tag = f'"{hashlib.md5(data).hexdigest()}"'
        if self.headers.get("If-Match") not in (None, tag):
            return self.status(412)
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        part = data[int(span[1]) : int(span[2]) + 1] if span and fault != "whole" else data
        left = self.faults.get(fault, 0)
        if body and left:
            self.faults[fault] = left - 1
        breaks = body and left and fault in ("drop", "flaky")
        self.send_response(206 if span and fault != "whole" else 200)
        if span and fault != "whole":
            self.send_header("Content-Range", f"bytes {span[1]}-{span[2]}/{len(data)}")
        if fault != "untagged":
            self.send_header("ETag", tag)
        self.send_header("Last-Modified", self.date_time_string(path.stat().st_mtime))
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if body:
            with contextlib.suppress(OSError):
                self.wfile.write(part[: len(part) // 2] if breaks else part)
        if breaks:
            self.close_connection = True
        return None

    def status(self, code):
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture(scope="module")
def web(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("web")
    for path in files.iterdir():
        shutil.copy(path, folder)
    Handler.folder = folder
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", NAMES)
def test_the_web_equals_local(web, files, run, name):
    remote, local = f"{web}/plain/{name}", f"{files}/{name}"
    code, out, err = run("search-lambda", remote)
    assert code == 0, err
    assert out.replace(remote, "FILE") == run("search-lambda", local)[1].replace(local, "FILE")
    assert run("info", remote)[0] == 0


def test_credentials_of_the_web(web, files, run, refuse):
    host = web.removeprefix("http://")
    code, out, err = run("prior", f"http://me:{SECRET}@{host}/login/rows.h5?signature={SECRET}")
    assert code == 0, err
    assert json.loads(out)["files"] == [f"{web}/login/rows.h5"]
    assert "no valid credentials" in refuse(NO_INPUT, "prior", f"{web}/login/rows.h5?signature={SECRET}")
    two = [f"{web}/plain/rows.h5?part={i}&token={SECRET}" for i in (1, 2)]
    assert run("prior", *two)[0] == 0
    assert "the same data as" in refuse(USAGE, "prior", two[0], two[0])


def test_faults_of_the_web(web, refuse, run, monkeypatch):
    assert "no such object" in refuse(NO_INPUT, "evaluate", f"{web}/plain/none.h5?token={SECRET}")
    assert "access denied" in refuse(NO_INPUT, "evaluate", f"{web}/denied/rows.h5")
    assert "sends no parts of files" in refuse(STORAGE, "evaluate", f"{web}/whole/planes.h5")
    monkeypatch.setattr(time, "sleep", lambda _: None)
    Handler.faults["flaky"] = 2
    assert run("evaluate", f"{web}/flaky/rows.h5")[0] == 0
    for name in ("rows.h5", "rows.parquet", "chunks.h5::val"):
        Handler.faults["drop"] = 10**6
        assert "reading failed" in refuse(STORAGE, "evaluate", f"{web}/drop/{name}")


@pytest.mark.parametrize("name", ["rows.h5", "rows.parquet", "chunks.h5::val"])
def test_a_connection_that_breaks_later(web, name):
    source = formats.describe(f"{web}/drop/{name}".replace("drop", "late"))
    plain = unoic_cli.evaluate(source).to_dict()
    Handler.faults["drop"] = 0
    source = formats.describe(f"{web}/drop/{name}")
    Handler.faults["drop"] = 10**6
    with pytest.raises(StorageError, match="reading failed"):
        unoic_cli.evaluate(source)
    Handler.faults["drop"] = 0
    assert {**unoic_cli.evaluate(source).to_dict(), "files": 0} == {**plain, "files": 0}


@pytest.mark.parametrize("kind", ["plain", "untagged"])
def test_a_page_that_changes(web, kind):
    path = Handler.folder / "changing.h5"
    shutil.copy(Handler.folder / "rows.h5", path)
    os.utime(path, (10**9, 10**9))
    source = formats.describe(f"{web}/{kind}/changing.h5")
    reader = formats.open_reader(source)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="changed while it was in use"):
        formats.open_reader(source)
    if kind == "plain":
        with pytest.raises(DataError, match="changed while it was in use"):
            list(reader.blocks(0, 100, frozenset({"scores"})))
    reader.close()


def test_servers_that_do_not_answer(refuse, monkeypatch):
    monkeypatch.setattr(reasons, "READ_SECONDS", 1)
    monkeypatch.setattr(reasons, "CONNECT_SECONDS", 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setattr(time, "sleep", lambda _: None)
        said = refuse(NO_INPUT, "evaluate", f"http://127.0.0.1:{taken.getsockname()[1]}/x.h5")
        assert "the server cannot be reached" in said
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        said = refuse(NO_INPUT, "evaluate", f"http://127.0.0.1:{silent.getsockname()[1]}/x.h5")
        assert "no answer in time" in said


@contextlib.contextmanager
def raw_server(respond):
    """A server that sends what it likes: `respond` gets a connection and the number of the request."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        ended = threading.Event()

        def serve():
            for number in range(100):
                with contextlib.suppress(OSError):
                    connection, _ = listening.accept()
                    with connection:
                        if ended.is_set():
                            return
                        connection.recv(65536)
                        respond(connection, number)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        ended.set()
        with contextlib.suppress(OSError), socket.create_connection(listening.getsockname(), 1):
            pass


def drip(connection, data, pause=0.05):
    for i in range(len(data)):
        connection.sendall(data[i : i + 1])
        time.sleep(pause)


FIRST = b"HTTP/1.1 206 OK\r\nContent-Range: bytes 0-0/100000\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx"
PART = b"HTTP/1.1 206 OK\r\nContent-Range: bytes 0-4095/100000\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("what", ["headers", "body"])
def test_servers_that_trickle(refuse, monkeypatch, what):
    """Each byte comes in time, and the whole of them never would."""
    monkeypatch.setattr(reasons, "REQUEST_SECONDS", 1)

    def respond(connection, number):
        if what == "headers":
            drip(connection, FIRST)
        elif number == 0:
            connection.sendall(FIRST)
        else:
            connection.sendall(PART % 4096)
            drip(connection, b"x" * 4096)

    with raw_server(respond) as url:
        began = time.monotonic()
        said = refuse(NO_INPUT if what == "headers" else STORAGE, "evaluate", f"{url}/x.h5?token={SECRET}")
        assert "an answer that takes more than 1 s" in said
        assert time.monotonic() - began < 8


def test_a_body_without_end(refuse):
    sent = []

    def respond(connection, number):
        if number == 0:
            connection.sendall(FIRST)
            return
        connection.sendall(PART % 10**12)
        while True:
            connection.sendall(bytes(1 << 20))
            sent.append(1)

    with raw_server(respond) as url:
        assert "sends more than was asked for" in refuse(STORAGE, "evaluate", f"{url}/x.h5")
    assert len(sent) < 100


URLS = [
    f"http://127.0.0.1:9/x.h5?token={SECRET}",
    f"http://127.0.0.1:9/x.h5#{SECRET}",
    f"http://127.0.0.1:9/x.h5?a=b#{SECRET}",
    f"http://me:{SECRET}@127.0.0.1:9/x.h5",
    f"https://{SECRET}@127.0.0.1:9/x.h5",
    f"HTTPS://me:{SECRET}@127.0.0.1:9/x.h5?sig={SECRET}",
    f"ftp://me:{SECRET}@127.0.0.1/x.h5?sig={SECRET}#{SECRET}",
    f"s3://bucket?region={SECRET}",
    f"s3://key:{SECRET}/with/slashes@bucket/x.h5?endpoint_override=http://127.0.0.1:9",
    f"az://me:{SECRET}@x/y.h5?X-Sig={SECRET}",
]
PLACES = {
    "evaluate": ["evaluate", "URL"],
    "named": ["evaluate", "rgb=URL", "depth=URL"],
    "list": ["evaluate", "@URL"],
    "method": ["compare", "rows.h5", "-m", "URL"],
    "titled": ["compare", "rows.h5", "-m", "A=URL"],
    "calibration": ["evaluate", "rows.h5", "-c", "URL"],
    "prior": ["evaluate", "rows.h5", "-l", "1", "--source-prior", "URL"],
    "delta": ["evaluate", "rows.h5", "-l", "1", "--delta", "URL"],
    "output": ["calibrate", "rows.h5", "-l", "1", "-o", "URL"],
    "state": ["evaluate", "rows.h5", "--state", "URL"],
    "report": ["report", "URL"],
    "statistics": ["fit-delta", "rows.h5", "--statistics", "URL"],
    "convert": ["convert", "URL", "o.h5", "--labels", "URL"],
    "pack": ["pack", "rows.h5", "URL"],
    "metric": ["search-lambda", "rows.h5", "--metric", "URL"],
    "split": ["evaluate", "rows.h5", "--split", "URL"],
    "lambda": ["evaluate", "rows.h5", "-l", "URL"],
    "scheduler": ["evaluate", "rows.h5", "--engine", "URL"],
    "option": ["evaluate", "rows.h5", "--threads", "URL"],
}


@pytest.mark.parametrize("place", PLACES)
def test_no_command_shows_what_a_url_keeps_to_itself(files, run, monkeypatch, place):
    shutil.copy(files / "rows.h5", "rows.h5")
    monkeypatch.setattr(reasons, "CONNECT_SECONDS", 1)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    urls = URLS if place in ("evaluate", "method", "prior") else URLS[:7]
    for url in urls:
        code, out, err = run(*(word.replace("URL", url) for word in PLACES[place]))  # which looks for the secret
        assert code, out
        assert len([line for line in err.splitlines() if line.startswith("unoic: error: ")]) <= 1


def test_states_keep_no_keys(web, files, run):
    """The name of an object in a state, and all that comes of it, is that without credentials."""
    host = web.removeprefix("http://")
    url = f"http://me:{SECRET}@{host}/login/rows.h5?signature={SECRET}#{SECRET}"
    for name, command in {
        "s": ["evaluate", url],
        "t": ["evaluate", f"x={url}", f"y={web}/plain/rows.h5", "-l", "0.5"],
    }.items():
        code, whole, err = run(*command)
        assert code == 0, err
        assert run(*command, "--state", name)[1] == whole
        assert SECRET.encode() not in pathlib.Path(name).read_bytes()
        code, out, err = run("report", name)
        assert (code, out) == (0, whole), err
        assert run(*command, "--checkpoint", "c", "--shard", "1/2", "--state", f"{name}1")[0] == 0
        assert SECRET.encode() not in pathlib.Path(f"{name}1").read_bytes()
    code, _, err = run("calibrate", url, "-l", "1", "-o", "o.h5")
    assert code == 0, err
    assert SECRET.encode() not in pathlib.Path("o.h5").read_bytes()


# ------------------------------------------------------------------------------------------------
# Google Cloud Storage: a server in another process, since pyarrow holds Python's lock while it asks for an object

GOOGLE = r"""
import hashlib, http.server, json, pathlib, re, select, sys, threading
from urllib.parse import parse_qsl, unquote, urlsplit
folder = pathlib.Path(sys.argv[1])
class Google(http.server.BaseHTTPRequestHandler):
    protocol_version, timeout, wbufsize = "HTTP/1.1", 30, -1
    log_message = lambda *_: None
    def do_GET(self):
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        found = re.fullmatch("(?:/download)?/storage/v1/b/bucket(/o)?(?:/(.+))?", url.path)
        name = unquote(found[2] or "") if found else ""
        if not found or (name and not (folder / name).is_file()):
            return self.answer(404, {"error": {"code": 404, "message": "none"}})
        if not name:
            names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
            items = [self.known(name) for name in names if name.startswith(query.get("prefix", ""))]
            return self.answer(200, {"items": items} if found[1] else {"name": "bucket"})
        if query.get("alt") != "media":
            return self.answer(200, self.known(name))
        data = (folder / name).read_bytes()
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last = (int(span[1]), int(span[2] or len(data) - 1)) if span else (0, len(data) - 1)
        part = data[first : last + 1]
        self.answer(206 if span else 200, part, f"bytes {first}-{first + len(part) - 1}/{len(data)}")
    def known(self, name):
        data = (folder / name).read_bytes()
        state = {"size": str(len(data)), "etag": hashlib.md5(data).hexdigest(), "generation": "1"}
        return {"bucket": "bucket", "name": name} | state
    def answer(self, code, body, span=None):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        if code == 206:
            self.send_header("Content-Range", span)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Google)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_port, flush=True)
select.select([sys.stdin], [], [], 60)
"""


@pytest.fixture
def google(tmp_path, monkeypatch):
    """A folder whose files are the objects of ``gs://bucket``, for a minute at most."""
    pytest.importorskip("pyarrow._gcsfs")
    (place := tmp_path / "bucket").mkdir()
    with subprocess.Popen([sys.executable, "-c", GOOGLE, place], stdin=PIPE, stdout=PIPE, text=True) as server:
        try:
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{int(server.stdout.readline())}")
            monkeypatch.delenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", raising=False)
            monkeypatch.delenv("http_proxy", raising=False)
            objects._google_system.cache_clear()
            yield place
        finally:
            server.kill()
            objects._google_system.cache_clear()


def test_google_equals_local(google, files, run):
    shutil.copytree(files, google, dirs_exist_ok=True)
    for name in ("rows.h5", "chunks.h5::val", "rows.parquet"):
        for command, *more in (("evaluate",), ("search-lambda", "--folds", "2")):
            code, out, err = run(command, f"gs://bucket/{name}", *more)
            assert code == 0, err
            plain = run(command, f"{files}/{name}", *more)[1]
            assert out.replace("gs://bucket", str(files)) == plain


def test_patterns_and_faults_of_google(google, files, answer, refuse):
    for name in ("part10.h5", "part9.h5", "other.h5", "part1/deep.h5"):
        (google / name).parent.mkdir(exist_ok=True)
        shutil.copy(files / "rows.h5", google / name)
    assert answer("prior", "gs://bucket/part*.h5")["files"] == ["gs://bucket/part9.h5", "gs://bucket/part10.h5"]
    assert answer("prior", "gs://bucket/**/deep.h5")["files"] == ["gs://bucket/part1/deep.h5"]
    assert "no such object" in refuse(NO_INPUT, "evaluate", "gs://bucket/none.h5")
    assert "no such bucket nobucket" in refuse(NO_INPUT, "evaluate", "gs://nobucket/rows.h5")
    assert "no file matches" in refuse(NO_INPUT, "prior", "gs://bucket/x*.h5")
    source = formats.describe("gs://bucket/other.h5")
    (google / "other.h5").write_bytes((files / "rows.h5").read_bytes()[:-1] + b"!")
    with pytest.raises(DataError, match="changed while it was in use"):
        formats.open_reader(source)


# ------------------------------------------------------------------------------------------------
# Azure: pyarrow ends the whole process where it has no key, or one that is none


def test_a_key_of_azure(refuse):
    pytest.importorskip("pyarrow._azurefs")
    name = "127.0.0.1:1/box/x.h5?enable_tls=false"
    assert "no valid credentials" in refuse(NO_INPUT, "evaluate", f"abfs://account:{SECRET}!@{name}")
    known = objects._azure_system("account:a2V5", "127.0.0.1:1", "enable_tls=false").__reduce__()[1][0]
    assert (known["account_name"], known["account_key"], known["blob_storage_scheme"]) == ("account", "a2V5", "http")
    found = urls.split_url("abfs://box:a2V5@account.dfs.core.windows.net/x.h5")
    assert found == ("abfs", ":a2V5", "box@account.dfs.core.windows.net/x.h5", "")
    assert objects._inside_azure(found[2]) == "box/x.h5"


# ------------------------------------------------------------------------------------------------
# without the packages

MISSING = """
import sys
class Finder:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in {missing!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Finder())
from unoic_cli import cli
sys.exit(cli.run(["evaluate", {name!r}]))
"""


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("abfs://box/x.h5", ("fsspec",)),
        ("az://box/x.parquet", ("adlfs",)),
    ],
)
def test_packages_that_are_not_installed(name, missing):
    code = MISSING.format(missing=missing, name=name)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (NO_INPUT, "")
    scheme = name.partition(":")[0]
    expected = f"{scheme}:// needs packages that are not installed; expected them: pip install 'unoic[cloud]'"
    assert done.stderr == f"unoic: error: {name}: {expected}\n"


def test_s3_needs_no_packages(s3):
    code = MISSING.format(missing=("fsspec", "s3fs", "aiohttp", "boto3"), name="s3://bucket/some/rows.h5")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
