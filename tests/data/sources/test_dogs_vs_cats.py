"""The download, from a server on this machine."""

import hashlib
import http.server
import io
import stat
import threading
import zipfile

import pytest
from PIL import Image

from transfer_learning.data.digests import FileDigests
from transfer_learning.data.sources.dogs_vs_cats import DogsVsCats, download
from transfer_learning.utilities.errors import ArgumentError, UserError


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


def test_a_good_archive_is_unpacked_once(tmp_path, serve, data_module):
    body = archive()
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "README").write_text("no photograph")
    download(folder, serve(body), sha256(body))
    assert visible(folder) == ["PetImages", "README"]
    download(folder, "http://127.0.0.1:9/not used", "")  # the folder has photographs now

    data = data_module(DogsVsCats(download_to=folder), (1, 1, 1), image_size=8)
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
def test_a_failed_download_leaves_nothing_and_names_three_ways_to_go_on(tmp_path, serve, fault, message):
    body = b"no archive" if fault == "not a zip" else archive(*([fault] if "outside" in fault else []))
    url = serve(body, sent=len(body) // 2 if fault == "cut" else None)
    if fault == "no connection":
        url = "http://127.0.0.1:9/archive.zip"
    folder = tmp_path / "inside" / "data"
    with pytest.raises(ArgumentError, match=message) as error:
        download(folder, url, "0" * 64 if fault == "checksum" else sha256(body))
    assert (error.value.argument, error.value.value) == ("download_to", str(folder))
    for way in (str(folder), "`root`", "`cartoons`"):
        assert way in str(error.value)
    assert visible(folder) == [] and not list(tmp_path.rglob("outside.txt"))


def test_a_process_that_is_stopped_while_it_waits_leaves_the_download_of_the_other(tmp_path, monkeypatch):
    unfinished = tmp_path / ".download" / "archive.zip"
    unfinished.parent.mkdir()
    unfinished.touch()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("transfer_learning.data.sources.dogs_vs_cats.waiting_lock", interrupted)
    with pytest.raises(KeyboardInterrupt):
        download(tmp_path, "http://127.0.0.1:9/not used", "")
    assert unfinished.exists()


def test_nothing_is_downloaded_into_a_folder_that_is_named_as_root(tmp_path, monkeypatch):
    name = "transfer_learning.data.sources.dogs_vs_cats.download"
    monkeypatch.setattr(name, lambda folder: pytest.fail("downloaded"))
    with pytest.raises(UserError, match="classes found: none"):
        DogsVsCats(root=tmp_path).list_images(FileDigests())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("argument", ["root", "download_to"])
def test_the_folder_without_photographs_of_dogs_is_named_as_it_was_given(tmp_path, write_image, argument):
    write_image(tmp_path / "Cat" / "0.jpg", 0)
    with pytest.raises(ArgumentError, match="classes found: cat; expected cat and dog") as error:
        DogsVsCats(**{argument: tmp_path}).list_images(FileDigests())
    assert (error.value.argument, error.value.value) == (argument, str(tmp_path))


def test_a_folder_with_other_images_gets_no_download_and_the_error_says_so(tmp_path, write_image):
    for seed, name in enumerate(("rose", "tulip")):
        write_image(tmp_path / "data" / "flowers" / name / "1.png", seed)
    with pytest.raises(ArgumentError, match="Nothing was downloaded, since it has images: choose another folder"):
        DogsVsCats(download_to=tmp_path / "data").list_images(FileDigests())


def test_without_a_root_the_photographs_are_downloaded_when_they_are_listed(tmp_path, serve, monkeypatch, write_image):
    asked = []

    def download(folder):
        asked.append(folder)
        for seed, name in enumerate(["PetImages/Cat/0.jpg", "PetImages/Dog/0.jpg"]):
            write_image(folder / name, seed)

    monkeypatch.setattr("transfer_learning.data.sources.dogs_vs_cats.download", download)
    source = DogsVsCats(download_to=str(tmp_path / "data"))
    assert not asked
    assert source.list_images(FileDigests()).labels.tolist() == [0, 1] and asked == [tmp_path / "data"]
