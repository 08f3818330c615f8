"""Everything that can be wrong with images.

DataError
├── UnknownData      the words after --data name nothing that is known (usage)
├── DataNotFound     the files are not where they were looked for
├── CorruptData      a file is there but is not what it should be: names file, offset, expectation
├── EmptyData        no images, or a single class
├── TestLeak         test images where training ones belong
└── DownloadFailed   the archive could not be fetched or verified
"""


class DataError(Exception):
    """Root of the errors of `calibration`; the message is one line that ends with what to do."""


class UnknownData(DataError):
    """A data specification that names nothing known."""


class DataNotFound(DataError):
    """A known data set whose files are not at any of the places looked at."""


class CorruptData(DataError):
    """A file that is truncated, inconsistent or of another kind."""


class EmptyData(DataError):
    """A data set without images, or with fewer than two classes."""


class TestLeak(DataError):
    """Images of a test split where only training images may be."""

    # pytest would collect a class of this name.
    __test__ = False


class DownloadFailed(DataError):
    """The official archive could not be fetched, or what came is not it."""
