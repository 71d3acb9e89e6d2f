"""Writing files: what else may stand at their place."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sharpcontour.errors import InputError
from sharpcontour.io.files import check_writable, save_results
from sharpcontour.io.images import looks_like_image

posix = pytest.mark.skipif(os.name != "posix", reason="Windows has no such files")


@posix
def test_a_pipe_or_a_device_is_never_replaced(tmp_path: Path) -> None:
    """As root, a file would take the place of /dev/null."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path(os.devnull)):
        with pytest.raises(InputError, match="is a device or a pipe, which a file would replace; give the name"):
            check_writable(path)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@posix
def test_a_link_stays_and_the_file_that_it_names_is_written(tmp_path: Path) -> None:
    (tmp_path / "large_disk").mkdir()
    file, link = tmp_path / "large_disk" / "a.json", tmp_path / "link.json"
    for contents in ([1], [2]):  # the file is missing at first
        link.unlink(missing_ok=True)
        link.symlink_to(file)
        check_writable(link)
        save_results(contents, link)
        assert link.is_symlink() and file.read_text() == str(contents) and len(list(tmp_path.rglob("*"))) == 3


@posix
def test_a_pipe_among_images_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "7")
    assert not looks_like_image(tmp_path / "7")
