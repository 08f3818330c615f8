"""The errors of data sets.

DataError
├── UnknownData      a spec, class, address or kind of damage that is not known (usage)
├── DataNotFound     the files are not where they were looked for
├── ReaderMissing    the package that reads such a file is not installed
├── CorruptData      a file with invalid content: names file, offset and expectation
├── EmptyData        no images, or a single class
├── TestLeak         test images where only training images may be used
└── DownloadFailed   the archive could not be fetched or verified
"""


class DataError(Exception):
    """Root of the errors of `calibration`; the message is one line that ends with what to do."""


class UnknownData(DataError):
    """A spec, class, address or kind of damage that is not known."""


class DataNotFound(DataError):
    """A known data set whose files were not found."""


class ReaderMissing(DataError):
    """The package that reads this kind of file is not installed; the message holds the pip line that adds it."""


class CorruptData(DataError):
    """A file that is truncated, inconsistent or of another kind."""


class EmptyData(DataError):
    """A data set without images, or with fewer than two classes."""


class TestLeak(DataError):
    """Images of a test split where only training images may be used."""

    # pytest would collect a class with this name.
    __test__ = False


class DownloadFailed(DataError):
    """The official archive could not be fetched, or the download is another file."""
