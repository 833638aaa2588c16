"""`weakmask fetch`: published data sets by name, downloaded, checked and laid out for a preset.

weakmask fetch voc12 --to ~/voc
weakmask fetch coco14 --to ~/coco
"""

import shlex
import shutil
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import click
import numpy as np
from tqdm import tqdm

from pipeline.core.resume import write_atomically
from pipeline.data.images import encode_png
from pipeline.errors import UserError
from pipeline.readers.voc import AUGMENTED, LISTED

CHUNK = 1 << 20
PARTIAL_CONTENT, RANGE_NOT_SATISFIABLE = 206, 416
COCO = "http://images.cocodataset.org"
VOC12 = Path("VOCdevkit/VOC2012")
SBD = Path("benchmark_RELEASE/dataset")


@dataclass(frozen=True, slots=True)
class Archive:
    """A file to download and unpack: address and hex MD5, as its publishers give it."""

    url: str
    md5: str

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]


def archives(dataset: str) -> tuple[Archive, ...]:
    """Return what a data set is downloaded as."""
    if dataset == "coco14":
        return (
            Archive(
                f"{COCO}/annotations/annotations_trainval2014.zip",
                "0a379cfc70b0e71301e0f377548639bd",
            ),
            Archive(f"{COCO}/zips/val2014.zip", "a3d79f5ed8d289b7a7554ce06a5782b3"),
            Archive(f"{COCO}/zips/train2014.zip", "0da8c0bd3d6becc4dcb32757491aca88"),
        )
    from torchvision.datasets.sbd import SBDataset
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    voc = DATASET_YEAR_DICT["2012"]
    return Archive(voc["url"], voc["md5"]), Archive(SBDataset.url, SBDataset.md5)


@click.command()
@click.argument("dataset", type=click.Choice(("voc12", "coco14")))
@click.option(
    "--to",
    "folder",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to download to.",
)
def fetch(dataset: str, folder: Path) -> None:
    """Download a published data set for the preset of the same name.

    voc12 is PASCAL VOC 2012 with the masks of SBD (Hariharan et al., ICCV 2011) and the list
    train_aug, 4 GB; coco14 is COCO 2014, 20 GB. Twice that is needed on the disk. Checksums are
    compared. Run an interrupted command again: it continues where it stopped.
    """
    store = folder / "archives"
    store.mkdir(parents=True, exist_ok=True)
    for archive in archives(dataset):
        unpack(archive, store, folder)
    source = folder
    if dataset == "voc12":
        source = folder / VOC12
        count = augment(source, folder / SBD)
        click.echo(f"train_aug lists {count} images")
    click.echo(f"{store} may be deleted. Next:")
    quoted = shlex.quote(str(source))
    click.echo(f"  weakmask init --preset {dataset} --source {quoted} --force\n  dvc repro")


def unpack(archive: Archive, store: Path, folder: Path) -> None:
    """Download an archive to the folder `store` and unpack it in `folder`, unless both are done.

    Raises UserError for a failed download or a wrong checksum.
    """
    from torchvision.datasets.utils import check_integrity

    path, done = store / archive.name, store / f"{archive.name}.unpacked"
    if done.exists():
        return
    if not check_integrity(path, archive.md5):
        part = store / f"{archive.name}.part"
        try:
            download(archive.url, part)
        except (OSError, HTTPException) as error:
            raise UserError(
                f"{archive.url}: the download failed ({error}); run the command again to continue"
            ) from error
        if not check_integrity(part, archive.md5):
            part.unlink()
            raise UserError(
                f"{archive.url}: does not have the MD5 checksum {archive.md5}; run the command "
                f"again, or put the file from another server at {path}"
            )
        part.replace(path)
    click.echo(f"unpacking {path}")
    shutil.unpack_archive(path, folder, filter=None if path.suffix == ".zip" else "data")
    done.touch()


def download(url: str, part: Path) -> None:
    """Download to the file `part`, after the bytes that it has if the server can skip them.

    torchvision's downloader begins again, which costs hours for the 13 GB of COCO.
    """
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "weakmask"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request)
    except urllib.error.HTTPError as error:
        if error.code == RANGE_NOT_SATISFIABLE:  # nothing is missing
            return
        raise
    with response:
        skipped = have if response.status == PARTIAL_CONTENT else 0
        size = int(response.headers.get("Content-Length", 0)) + skipped
        with (
            part.open("ab" if skipped else "wb") as file,
            tqdm(total=size, initial=skipped, desc=part.stem, unit="B", unit_scale=True) as bar,
        ):
            while chunk := response.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    if size > part.stat().st_size:  # urllib ends silently when the connection does
        raise OSError(f"{part.stat().st_size} of {size} bytes arrived")


def augment(voc: Path, sbd: Path) -> int:
    """Write the list train_aug and SBD's masks for it into VOC's folder; return its length.

    The list is all of SBD, train and val, and VOC 2012's train without VOC 2012's val: 10,582
    images, the common training set of weakly supervised segmentation.
    """
    from scipy.io import loadmat

    lists = voc / LISTED
    train, held_out = (_read_list(lists / f"{split}.txt") for split in ("train", "val"))
    outlined = _read_list(sbd / "train.txt") | _read_list(sbd / "val.txt")
    names = sorted((train | outlined) - held_out)
    (voc / AUGMENTED).mkdir(exist_ok=True)
    for name in tqdm(sorted(outlined.intersection(names)), desc="SBD's masks", unit="image"):
        path = voc / AUGMENTED / f"{name}.png"
        if not path.exists():
            content = loadmat(sbd / "cls" / f"{name}.mat", squeeze_me=True)
            mask = np.asarray(content["GTcls"]["Segmentation"].item(), np.uint8)
            write_atomically(path, encode_png(mask))
    write_atomically(lists / "train_aug.txt", "".join(f"{name}\n" for name in names).encode())
    return len(names)


def _read_list(path: Path) -> set[str]:
    """Return the ids in a list, one a line."""
    return set(path.read_text(encoding="utf-8").split())
