"""A file is there whole or as it was before, whatever goes wrong while it is written."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from infoplace.errors import DataError, RunFolderError
from infoplace.files import locked, make_folder, read_tensors, read_yaml, replacing, write_tensors


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    path.write_text("old")
    return path


def assert_as_it_was(old: Path) -> None:
    assert old.read_text() == "old"
    assert [item.name for item in old.parent.iterdir()] == [old.name]


def test_a_block_that_ends_well_replaces_the_file(old: Path) -> None:
    with replacing(old) as temporary:
        temporary.write_text("new")
        assert old.read_text() == "old"
        assert temporary.parent == old.parent
        assert temporary.suffix == ".safetensors"
    assert old.read_text() == "new"
    assert [item.name for item in old.parent.iterdir()] == [old.name]


def test_a_file_that_was_not_there_is_made(tmp_path: Path) -> None:
    with replacing(str(tmp_path / "run.json")) as temporary:
        temporary.write_text("{}")
    assert (tmp_path / "run.json").read_text() == "{}"


def write(path: Path, text: str, error: BaseException | None = None) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text)
        if error is not None:
            raise error


@pytest.mark.parametrize(
    "error",
    [ValueError("a bug"), KeyboardInterrupt(), DataError("x: values must be finite"), RunFolderError("another folder")],
    ids=["value", "interrupt", "data", "folder"],
)
def test_an_error_in_the_block_passes_through_and_leaves_the_file(old: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        write(old, "half", error)
    assert caught.value is error
    assert_as_it_was(old)


def full_disk() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_one_clear_sentence(old: Path) -> None:
    error = full_disk()
    with pytest.raises(RunFolderError) as caught:
        write(old, "half", error)
    assert str(caught.value) == (
        f"cannot write {old}: No space left on device; free some space or choose another folder"
    )
    assert caught.value.__cause__ is error
    assert_as_it_was(old)


def test_a_disk_that_is_full_when_the_file_takes_its_place(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise full_disk()

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(RunFolderError, match=r"cannot write .*: No space left on device; free some space"):
        write(old, "whole")
    assert_as_it_was(old)


def test_tensors_and_their_text_come_back(tmp_path: Path) -> None:
    tensors = {"w": torch.randn(2, 3).t(), "count": torch.tensor(5)}
    write_tensors(tmp_path / "w.safetensors", tensors, "a text")
    read, text = read_tensors(tmp_path / "w.safetensors")
    assert text == "a text"
    assert all(torch.equal(read[name], value) for name, value in tensors.items())
    plain = tmp_path / "plain.txt"
    plain.write_text("")
    assert (tmp_path / "w.safetensors").stat().st_mode == plain.stat().st_mode


def test_tensors_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_tensors(path, {"w": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(RunFolderError, match="is not a whole file of tensors"):
        read_tensors(path)


@pytest.mark.parametrize("text", ["1e-3", "1.0e-3", "0.001", "1E-3", "+1e-3", ".1e-2"])
def test_numbers_are_those_of_yaml_1_2(text: str) -> None:
    assert read_yaml(f"beta: {text}") == {"beta": 1e-3}


@pytest.mark.parametrize("text", ["e3", "1e", "x1e3", "1e3x"])
def test_words_stay_words(text: str) -> None:
    assert read_yaml(f"name: {text}") == {"name": text}


def test_make_folder_makes_the_parents_and_keeps_what_is_there(tmp_path: Path) -> None:
    folder = make_folder(str(tmp_path / "runs" / "svhn"))
    assert folder == tmp_path / "runs" / "svhn"
    (folder / "run.json").write_text("{}")
    assert make_folder(folder) == folder
    assert (folder / "run.json").exists()


def test_make_folder_in_the_place_of_a_file(old: Path) -> None:
    with pytest.raises(RunFolderError) as caught:
        make_folder(old)
    assert str(caught.value) == f"{old} is a file, and a folder is needed; choose another name"


def test_make_folder_under_a_file(old: Path) -> None:
    with pytest.raises(RunFolderError) as caught:
        make_folder(old / "run")
    assert str(caught.value) == f"cannot make the folder {old / 'run'}: Not a directory"
    assert_as_it_was(old)


def test_a_lock_keeps_others_out_as_long_as_the_block_lasts(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(RunFolderError, match="another run is writing into"), locked(tmp_path):
        pass
    with locked(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ["run.lock"]
    assert not list(tmp_path.iterdir())


def test_a_lock_ends_with_the_process_that_held_it(tmp_path: Path) -> None:
    killed = f"import os\nfrom infoplace.files import locked\nwith locked({str(tmp_path)!r}):\n    os._exit(9)"
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == 9
    assert (tmp_path / "run.lock").exists()
    with locked(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_lock_needs_a_folder(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("")
    refused = pytest.raises(RunFolderError, match=r"cannot write .*run\.lock: .*; choose another folder")
    with refused, locked(tmp_path / "notes"):
        pass
