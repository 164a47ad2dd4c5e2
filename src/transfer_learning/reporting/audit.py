"""The results of an audit of images: audit.csv, which a user fills in, and audit.html, a page with thumbnails."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from transfer_learning.reporting.page import jpeg_address, write_page
from transfer_learning.utilities.files import write_csv

KINDS = {  # of findings, in the order in which they are shown
    "identical": "Identical files",
    "near-duplicate": "Near-duplicates",
    "label": "Suspect labels",
    "outlier": "Outliers",
    "one colour": "One colour",
    "dark": "Very dark",
    "bright": "Very bright",
    "small": "Very small",
    "stretched": "Very wide or tall",
}
SIDE = 160  # pixels of a thumbnail, at most


class Finding(NamedTuple):
    """What is noticeable about an image, or about a pair of images."""

    kind: str  # a key of `KINDS`
    image: int  # its index; of a pair, that of the image that is rather left out
    score: float
    detail: str = ""
    other: int | None = None  # the index of the other image of a pair


@dataclass(frozen=True)
class Audit:
    """M images and what was found about them."""

    files: Sequence[str]
    digests: Sequence[str]  # SHA-256 (hex) of the images' bytes
    splits: Sequence[str]  # "train", "val", "test", or "" for an image that is in none
    classes: Sequence[str]  # the name of each image's class
    findings: Sequence[Finding]  # those of each kind together, the most noticeable first
    summary: Mapping[str, str]  # what the folder has: formats, modes, sizes ...

    def of(self, kind: str) -> list[Finding]:
        """The findings of one kind."""
        return [finding for finding in self.findings if finding.kind == kind]

    def is_across(self, finding: Finding) -> bool:
        """Whether a finding is a pair whose images are in two splits."""
        return finding.other is not None and len({self.splits[finding.image], self.splits[finding.other]} - {""}) == 2

    def counts(self) -> list[tuple[str, int, int]]:
        """For each kind its title, the number of findings, and the number of those that are across splits."""
        return [(title, len(found := self.of(kind)), sum(map(self.is_across, found))) for kind, title in KINDS.items()]


def write_table(path: str | Path, audit: Audit) -> None:
    """Writes audit.csv atomically, a row a finding. Its column `exclude` is empty. Raises OSError."""
    columns = ["exclude", "finding", "score", "file", "sha256", "split", "class", "detail"]
    rows: list[list] = [[*columns, "other_file", "other_split", "other_class"]]
    for kind, n, score, detail, other in audit.findings:
        of_other = [column[other] if other is not None else "" for column in (audit.files, audit.splits, audit.classes)]
        image = [audit.files[n], audit.digests[n], audit.splits[n], audit.classes[n]]
        rows.append(["", kind, f"{score:.4f}", *image, detail, *of_other])
    write_csv(path, rows)


def write_audit_page(path: str | Path, audit: Audit, pixels: np.ndarray, top: int) -> None:
    """Writes audit.html atomically, with thumbnails of the first `top` findings of each kind. Raises OSError.

    `pixels` are those of the M images, (M, H, W, 3) uint8.
    """

    def image(index: int) -> dict[str, str]:
        file, split = audit.files[index], audit.splits[index] or "no split"
        name = "/".join(PurePath(file).parts[-2:])
        return {
            "picture": thumbnail(pixels[index]),
            "file": file,
            "name": name,
            "where": f"{split}, {audit.classes[index]}",
        }

    def shown(finding: Finding) -> dict[str, Any]:
        indices = [finding.image, *([] if finding.other is None else [finding.other])]
        text = ", ".join(filter(None, [f"{finding.score:.3g}", finding.detail]))
        return {"images": [image(n) for n in indices], "text": text, "across": audit.is_across(finding)}

    sections = [
        {"kind": kind, "title": title, "count": len(found), "findings": [shown(each) for each in found[:top]]}
        for kind, title in KINDS.items()
        if (found := audit.of(kind))
    ]
    content = {"sections": sections, "counts": audit.counts(), "summary": audit.summary, "images": len(audit.files)}
    write_page(path, content, "audit.html.jinja")


def thumbnail(pixels: np.ndarray) -> str:
    """(H, W, 3) uint8 as the address of an `img`: a JPEG inside the page, at most 160 pixels wide and high."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((SIDE, SIDE))
    return jpeg_address(picture, quality=80)
