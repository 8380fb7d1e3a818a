"""The errors a user can meet: each names what was wrong, what was expected and what to do."""


class NpmobilenetError(Exception):
    """Base of every error this package raises on purpose; its text is one clear statement."""


class CheckpointError(NpmobilenetError, ValueError):
    """A checkpoint file cannot be read, is refused as unsafe, or does not fit the network."""


class ImageError(NpmobilenetError, ValueError):
    """A file or array is not an image that can be classified."""


class LargeImageError(ImageError):
    """A picture has more pixels than the limit allows to be decoded."""


class DownloadError(NpmobilenetError, OSError):
    """A download failed or did not arrive intact."""


class CacheError(NpmobilenetError, OSError):
    """There is no folder to keep files in."""


class AssumptionWarning(UserWarning):
    """A checkpoint was read under an assumption that nothing in the file confirms, or not all of it was read.

    `npmobilenet.load` warns once for each, in one line; `Model.provenance` has them too. To silence them:
    ``warnings.simplefilter("ignore", npmobilenet.AssumptionWarning)``.
    """


class FallbackWarning(UserWarning):
    """A network holds an operation that the fastest kernels do not know, and is computed by slower ones.

    `npmobilenet.load` warns once, in one line that says which; `Model.backend` is what computes it then. To silence it:
    ``warnings.simplefilter("ignore", npmobilenet.FallbackWarning)``, or ask for the backend "plain".
    """


class MissingDependencyError(NpmobilenetError, ImportError):
    """An optional library is needed for what was asked; the text says which extra installs it."""
