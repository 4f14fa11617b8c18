"""Prepared data: what it is (`dataset`) and two ways to read it."""

import jax

from visxp_jax.config import DataConfig
from visxp_jax.data.dataset import PreparedDataset
from visxp_jax.data.reader import Reader
from visxp_jax.errors import VisxpError


def open_reader(dataset: PreparedDataset, config: DataConfig) -> Reader:
    """The reader that `config.reader` names, for this host's share of the rows.

    Raises:
        VisxpError: the data are stored in the other format, or TensorFlow is missing.
    """
    if dataset.file_format != config.reader:
        raise VisxpError(
            f"data.reader must fit the prepared data, which are {dataset.file_format}, "
            f"got {config.reader!r}; change it, or prepare with "
            f"--format={config.reader}."
        )
    hosts = {"host": jax.process_index(), "hosts": jax.process_count()}
    if config.reader == "array_record":
        from visxp_jax.data.array_record import ArrayRecordReader

        return ArrayRecordReader(dataset, **hosts)
    try:
        from visxp_jax.data.tfrecord import TFRecordReader
    except ModuleNotFoundError as error:
        raise VisxpError(
            "data.reader='tfrecord' needs TensorFlow, which is not installed; "
            "install it, or prepare with --format=array_record and set "
            "data.reader='array_record'."
        ) from error
    return TFRecordReader(dataset, shuffle_buffer=config.shuffle_buffer, **hosts)
