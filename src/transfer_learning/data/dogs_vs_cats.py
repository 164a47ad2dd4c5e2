"""The photographs of Kaggle's Dogs vs Cats, from a folder or from Microsoft's public archive."""

import os
import shutil
import stat
import zipfile
from pathlib import Path

import pooch
from filelock import FileLock
from pytorch_lightning.utilities import rank_zero_info

from transfer_learning.data.files import Images, find_images, is_image_name
from transfer_learning.data.module import ImageData
from transfer_learning.errors import UserError, first_line

URL = "https://download.microsoft.com/download/3/E/1/3E1C3F21-ECDB-4869-8368-6DEBA77B919F/kagglecatsanddogs_5340.zip"  # 787 MB
SHA256 = "b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9"


class DogsVsCats(ImageData):
    """Cats (0) and dogs (1), as class folders or in Kaggle's flat layout.

    Args:
        root: the folder of the photographs. Nothing is ever downloaded into it.
        download_to: without `root`, the folder that holds the photographs or gets them from the archive.
        settings: keyword arguments of `ImageData`.
    """

    def __init__(self, root: str | Path | None = None, download_to: str | Path = "data", **settings):
        super().__init__(**settings)
        self.root = root
        self.download_to = Path(download_to).expanduser()

    def find(self) -> Images:
        if self.root is None:
            download(self.download_to)
        return find_images(self.root or self.download_to, class_names=("cat", "dog"))


def download(folder: Path, url: str = URL, sha256: str = SHA256) -> None:
    """Downloads and unpacks the archive into `folder`, unless images lie there already. The result is complete or absent.

    Raises:
        UserError: no connection, a connection that breaks, the wrong checksum, an archive that points outside the folder, a full disk.
    """
    if _has_images(folder):
        return
    work = folder / ".download"  # all that is unfinished lies here
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            if _has_images(folder):  # another run was faster
                return
            shutil.rmtree(work, ignore_errors=True)
            rank_zero_info(f"{folder}: no photographs yet, downloading {url}")
            progress = pooch.HTTPDownloader(progressbar=True, timeout=30)
            archive = pooch.retrieve(url, f"sha256:{sha256}", fname="archive.zip", path=work, downloader=progress)
            with zipfile.ZipFile(archive) as members:
                _refuse_what_leads_outside(members)
                members.extractall(work)
            os.replace(work / "PetImages", folder / "PetImages")
    except (
        OSError,
        ValueError,
        zipfile.BadZipFile,
    ) as error:  # requests' errors are OSErrors; pooch's wrong checksum is a ValueError
        raise UserError(
            f"{folder}: no photographs there, and {url} could not be downloaded ({first_line(error)}). Three ways on: put the photographs "
            "there (PetImages/Cat/1.jpg or train/cat.1.jpg); name their folder, data.root=…; or train on drawings, data=cartoons."
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _has_images(folder: Path) -> bool:
    return any(is_image_name(path) and ".download" not in path.parts for path in folder.rglob("*"))


def _refuse_what_leads_outside(members: zipfile.ZipFile) -> None:
    for member in members.infolist():
        name = member.filename.replace("\\", "/")
        if name.startswith("/") or ":" in name or ".." in name.split("/") or stat.S_ISLNK(member.external_attr >> 16):
            raise ValueError(f"the archive holds {member.filename!r}, which leads outside the folder")
