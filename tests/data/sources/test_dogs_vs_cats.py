"""The download, against a server on this machine: a good file, a wrong checksum, a cut connection, no connection, a hostile archive."""

import hashlib
import http.server
import io
import stat
import threading
import zipfile

import pytest
from PIL import Image

from transfer_learning.data.dogs_vs_cats import DogsVsCats, download
from transfer_learning.errors import UserError


def archive(*extra_members) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as members:
        for index, name in enumerate(["Cat/0.jpg", "Cat/1.jpg", "Cat/2.jpg", "Dog/0.jpg", "Dog/1.jpg", "Dog/2.jpg"]):
            image = io.BytesIO()
            Image.new("RGB", (20, 20), (index * 40, 0, 0)).save(image, "JPEG")
            members.writestr(f"PetImages/{name}", image.getvalue())
        members.writestr("readme[1].txt", "terms")
        for name in extra_members:
            member = zipfile.ZipInfo(name)
            if name.startswith("link"):
                member.external_attr = (stat.S_IFLNK | 0o777) << 16
            members.writestr(member, "../../outside.txt")
    return buffer.getvalue()


@pytest.fixture
def serve():
    """serve(body, sent): a URL that gives `body`, of which only `sent` bytes arrive."""
    servers = []

    def start(body: bytes, sent: int | None = None) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[:sent])

            def log_message(self, *arguments):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/archive.zip"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def visible(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def test_a_good_archive_is_unpacked_once(tmp_path, serve, monkeypatch):
    body = archive()
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "README").write_text("no photograph")
    download(folder, serve(body), sha256(body))
    assert visible(folder) == ["PetImages", "README"]
    download(folder, "http://127.0.0.1:9/never asked", "")  # photographs lie there, so nobody is asked

    data = DogsVsCats(
        download_to=folder,
        cache_dir=tmp_path / "cache",
        image_size=8,
        train_per_class=1,
        val_per_class=1,
        test_per_class=1,
    )
    data.setup()
    assert data.class_names == ("cat", "dog") and len(data.pixels) == 6


@pytest.mark.parametrize(
    "fault, message",
    [
        ("checksum", "hash of downloaded file"),
        ("cut", "IncompleteRead|does not match|Connection"),
        ("no connection", "Connection"),
        ("../outside.txt", "outside the folder"),
        ("/outside.txt", "outside the folder"),
        ("..\\outside.txt", "outside the folder"),
        ("link to outside", "outside the folder"),
        ("not a zip", "BadZipFile"),
    ],
)
def test_a_bad_one_leaves_nothing_and_tells_three_ways_on(tmp_path, serve, fault, message):
    body = b"no archive" if fault == "not a zip" else archive(*([fault] if "outside" in fault else []))
    url = serve(body, sent=len(body) // 2 if fault == "cut" else None)
    if fault == "no connection":
        url = "http://127.0.0.1:9/archive.zip"
    folder = tmp_path / "inside" / "data"
    with pytest.raises(UserError, match=message) as error:
        download(folder, url, "0" * 64 if fault == "checksum" else sha256(body))
    for way in (str(folder), "data.root=", "data=cartoons"):
        assert way in str(error.value)
    assert visible(folder) == [] and not list(tmp_path.rglob("outside.txt"))


def test_a_folder_that_somebody_typed_is_never_downloaded_into(tmp_path, monkeypatch):
    monkeypatch.setattr("transfer_learning.data.dogs_vs_cats.download", lambda folder: pytest.fail("downloaded"))
    with pytest.raises(UserError, match="classes found: none"):
        DogsVsCats(root=tmp_path).setup()
    assert not list(tmp_path.iterdir())
