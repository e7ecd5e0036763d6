"""How far a step of a bundle is, told on a terminal and elsewhere."""

import sys

import pytest

from cappella.bundle.progress import step


def test_elsewhere_a_step_is_one_line_and_counts_what_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    with step("copying", 2_000_000_000) as bar:
        bar.skip(500)
        bar.add(100)
        bar.add(-50)
    assert bar.done == 550
    assert capsys.readouterr() == ("copying: 2 GB\n", "")


@pytest.mark.parametrize(("in_bytes", "shown"), [(True, "0.6/1.0 kB"), (False, "600/1000")])
def test_a_terminal_gets_a_bar_that_counts_what_was_there(
    in_bytes: bool, shown: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with step("copying", 1000, in_bytes) as bar:
        bar.skip(500)
        bar.add(100)
    out, err = capsys.readouterr()
    assert out == ""
    assert "copying" in err
    assert shown in err


def test_where_rich_is_not_installed_a_terminal_gets_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setitem(sys.modules, "rich", None)
    with step("installing packages", 7, in_bytes=False):
        pass
    assert capsys.readouterr().out == "installing packages: 7\n"
