"""Files are there whole or not at all."""

import pytest

from visxp_jax.atomic import write_whole


def test_a_file_that_cannot_be_put_in_place_leaves_nothing(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError):  # noqa: PT011  (by the system)
        write_whole(tmp_path / "a", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    write_whole(tmp_path / "b", "text")
    assert (tmp_path / "b").read_text() == "text"
    assert len(list(tmp_path.iterdir())) == 2
