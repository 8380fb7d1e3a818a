"""The weights that are known by name: shipped with the package, or to be downloaded.

A shipped file is a ``.safetensors`` file whose metadata holds all that belongs to the weights: class names,
preprocessing, padding, batch norm's eps, origin, licence and published accuracy. ``LICENSES.md`` has the
licence texts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from npmobilenet.checkpoints import Checkpoint, read_checkpoint
from npmobilenet.checkpoints.info import WeightsInfo
from npmobilenet.errors import CacheError, CheckpointError
from npmobilenet.image import IMAGENET
from npmobilenet.kernels.paths import NoFolderError, cache_directory

HERE = Path(__file__).parent


@dataclass(frozen=True)
class CatalogueEntry:
    """Weights known by name.

    Attributes
    ----------
    name : str
    file : str
        File name: in this folder if shipped, else in the cache folder once downloaded.
    sha256 : str
        Of the file; for a download the first digits, as they stand in its name.
    url : str or None
        Where it can be downloaded; None if it is shipped.
    architecture : str or None
        Of what is shipped: no other is looked for.
    """

    name: str
    file: str
    sha256: str
    architecture: str | None = None
    url: str | None = None
    about: WeightsInfo | None = None
    """What belongs to a download, whose file does not say it."""

    @property
    def path(self) -> Path:
        """Where the file is, or will be after a download; of a package in an archive, its place in there.

        Raises
        ------
        CacheError
            If it is to be downloaded and this user has no cache folder.
        """
        if not self.url:
            return HERE / self.file
        try:
            return cache_directory() / "weights" / self.file
        except NoFolderError as error:
            raise CacheError(str(error)) from None

    @property
    def present(self) -> bool:
        """Whether the file is on this machine."""
        try:
            return self.path.is_file() or self._packed() is not None
        except CacheError:
            return False

    def info(self) -> WeightsInfo:
        """What belongs to the weights."""
        return self.about or WeightsInfo.from_dict(self.read().metadata, str(self.path))

    def verify(self) -> bool:
        """Return whether the file on this machine has the checksum it should have."""
        content = self.path.read_bytes() if self.path.is_file() else self._packed()
        import hashlib  # few ask for it

        return hashlib.sha256(content).hexdigest().startswith(self.sha256)

    def require(self) -> Path:
        """Return the path of the file.

        Raises
        ------
        CheckpointError
            If it has to be downloaded first; the message has the command.
        """
        if not self.present:
            how = f"run: npmobilenet weights download {self.name}" if self.url else "reinstall npmobilenet"
            raise CheckpointError(f"weights {self.name!r} are not on this machine; {how}")
        return self.path

    def read(self, *, ema: bool | None = None) -> Checkpoint:
        """Read the weights (as `read_checkpoint`), out of an archive if the package is in one.

        Raises
        ------
        CheckpointError
            If they have to be downloaded first, or cannot be read.
        """
        path = self.require()
        if path.is_file():
            return read_checkpoint(path, ema=ema, mapped=not self.url)
        from tempfile import TemporaryDirectory  # here, for few need it

        try:
            with TemporaryDirectory(prefix="npmobilenet-") as folder:
                copy = Path(folder) / self.file
                copy.write_bytes(self._packed())
                return replace(read_checkpoint(copy, ema=ema), path=path)
        except OSError as error:
            raise CheckpointError(f"{path}: no temporary copy of it can be written: {error.strerror}") from error

    def _packed(self) -> bytes | None:
        """The content of a shipped file that stands in an archive with the package."""
        try:
            return None if self.url else __spec__.loader.get_data(str(HERE / self.file))
        except (AttributeError, OSError):
            return None


CATALOGUE = {
    entry.name: entry
    for entry in (
        CatalogueEntry(
            "mobilenet_v2",
            "mobilenet_v2.safetensors",
            "f8326609068dd6f437916ec61b6d8cc4e9ed50a1c149411a765881dfef1b7844",
            "mobilenet_v2",
        ),
        CatalogueEntry(
            "mobilenet_v1",
            "mobilenet_v1.safetensors",
            "82f5fa361028d6e3cffac23686e89e4684769df2a5c4ecc73ffc8c222c512366",
            "mobilenet_v1",
        ),
        CatalogueEntry(
            "ssdlite_mobilenet_v2_person",
            "ssdlite_mobilenet_v2_person.safetensors",
            "48a4d2cf9f25d08cf4098ce1255ebc239f9b50478f39230c9a5c373efc02c253",
            "ssdlite_mobilenet_v2",
        ),
        CatalogueEntry(
            "ssd_mobilenet_v1_face",
            "ssd_mobilenet_v1_face.safetensors",
            "cc157f2da239479e574a1fa958601b1c341b7a0fc7fa41ac7743980b283b7d94",
            "ssd_mobilenet_v1_face",
        ),
        CatalogueEntry(
            "face_expression",
            "face_expression.safetensors",
            "b4a3ba4e78146a4b18f4e655821fa4ec2a929eb97ce842790df203ecdf4ac157",
            "face_expression",
        ),
        CatalogueEntry(
            "tiny_face_detector",
            "tiny_face_detector.safetensors",
            "357069f2df867d731ee4a02df33f7888471cf06d8494b7e74fb2010d36f73e72",
            "tiny_face_detector",
        ),
        CatalogueEntry(
            "selfie_segmentation",
            "selfie_segmentation.safetensors",
            "1e1535db73c6dc0f977a7bd2bd26cbbe3287c108d52c2ac4dc71d189e042a806",
            "selfie_segmentation",
        ),
        CatalogueEntry(
            "mobilenet_v2_imagenet1k_v2",
            "mobilenet_v2-7ebf99e0.pth",
            "7ebf99e0",
            url="https://download.pytorch.org/models/mobilenet_v2-7ebf99e0.pth",
            about=WeightsInfo(
                preprocessing=replace(IMAGENET, resize=232),
                title="MobileNetV2 1.0, ImageNet: torchvision's second training recipe (IMAGENET1K_V2)",
                source="torchvision, MobileNet_V2_Weights.IMAGENET1K_V2",
                licence="BSD-3-Clause, Copyright (c) Soumith Chintala 2016",
                top1=72.154,
                top5=90.822,
            ),
        ),
    )
}


def download_weights(name: str) -> Path:
    """Download weights known by name into the cache folder, resuming and verifying, and return the file.

    Raises
    ------
    ValueError
        If there are none of that name.
    DownloadError
        If the download fails or does not have the checksum it should have.
    """
    entry = CATALOGUE.get(name)
    if entry is None:
        raise ValueError(f"no weights {name!r}; there are: {', '.join(CATALOGUE)}")
    if entry.url is None:
        return entry.require()
    from npmobilenet.download import download

    return download(entry.url, entry.path, sha256_prefix=entry.sha256)
