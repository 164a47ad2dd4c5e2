"""The photographs of Kaggle's Dogs vs Cats, from a folder or from Microsoft's public archive."""

import os
import shutil
import stat
import zipfile
from pathlib import Path

import pooch
from pytorch_lightning.utilities import rank_zero_info

from transfer_learning.data.digests import FileDigests
from transfer_learning.data.formats import is_image_name
from transfer_learning.data.images import Images
from transfer_learning.data.sources.folder import Folder
from transfer_learning.utilities.errors import ArgumentError, first_line
from transfer_learning.utilities.locks import waiting_lock
from transfer_learning.utilities.validation import PathArgument, validated

URL = "https://download.microsoft.com/download/3/E/1/3E1C3F21-ECDB-4869-8368-6DEBA77B919F/kagglecatsanddogs_5340.zip"
SHA256 = "b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9"  # 787 MB


@validated
class DogsVsCats:
    """Cats (0) and dogs (1), in class folders or in Kaggle's flat layout.

    Args:
        root: the folder of the photographs; nothing is ever downloaded into it. None takes `download_to`.
        download_to: a folder that has the photographs, or gets them from the archive.
    """

    def __init__(self, root: PathArgument | None = None, download_to: PathArgument = "data"):
        self.root, self.download_to = root, Path(download_to).expanduser()

    def list_images(self, file_digests: FileDigests) -> Images:
        """Raises UserError as `download` and `Folder` do."""
        if self.root is None:
            download(self.download_to)
        argument, folder = ("download_to", self.download_to) if self.root is None else ("root", self.root)
        try:
            return Folder(folder, classes=("cat", "dog")).list_images(file_digests)
        except ArgumentError as error:  # the user has not chosen the classes
            hint = " Nothing was downloaded, since it has images: choose another folder." if self.root is None else ""
            raise ArgumentError(argument, str(folder), error.message + hint) from error


def download(folder: Path, url: str = URL, sha256: str = SHA256) -> None:
    """Downloads and unpacks the archive into `folder`, unless it has images. The result is complete or absent.

    Raises:
        ArgumentError: no connection or a broken one, a wrong checksum, an archive that would write outside the folder,
            a full disk (`download_to`).
    """
    if _has_images(folder):
        return
    work = folder / ".download"  # for unfinished files
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with waiting_lock(folder / ".lock", "downloads the photographs"):
            if _has_images(folder):  # another process has downloaded it
                return
            shutil.rmtree(work, ignore_errors=True)  # of a killed process
            try:
                rank_zero_info(f"{folder}: no photographs yet, downloading {url}")
                _unpack(_archive(url, sha256, work), work)
                os.replace(work / "PetImages", folder / "PetImages")
            finally:
                shutil.rmtree(work, ignore_errors=True)
    except (OSError, ValueError, zipfile.BadZipFile) as error:  # requests raises OSErrors, pooch a ValueError
        reason = f"no photographs there, and {url} could not be downloaded ({first_line(error)})"
        ways = "Put them there (PetImages/Cat/1.jpg or train/cat.1.jpg), name their `root`, or use `cartoons`."
        raise ArgumentError("download_to", str(folder), f"{reason}. {ways}") from error


def _archive(url: str, sha256: str, folder: Path) -> str:
    """Downloads the archive into a folder, and returns its path. Raises OSError; ValueError for another checksum."""
    progress = pooch.HTTPDownloader(progressbar=True, timeout=30)
    return pooch.retrieve(url, f"sha256:{sha256}", fname="archive.zip", path=folder, downloader=progress)


def _unpack(archive: str, folder: Path) -> None:
    """Unpacks a zip file. Raises ValueError if it has a link or would write outside the folder; OSError; BadZipFile."""
    with zipfile.ZipFile(archive) as members:
        for member in members.infolist():
            name, link = member.filename.replace("\\", "/"), stat.S_ISLNK(member.external_attr >> 16)
            if name.startswith("/") or ":" in name or ".." in name.split("/") or link:
                raise ValueError(f"the archive has {member.filename!r}, a path outside the folder")
        members.extractall(folder)


def _has_images(folder: Path) -> bool:
    return any(is_image_name(path) and ".download" not in path.parts for path in folder.rglob("*"))
