"""What wheels' names say, as pip reads them."""

import pytest

from cappella.bundle import wheel_names, wheels
from cappella.bundle.manifest import Target

TARGET = Target("linux_x86_64", "3.11", "2.28")


@pytest.mark.parametrize(
    ("tag", "fits"),
    [
        ("py3-none-any", True),
        ("py2.py3-none-any", True),
        ("py2-none-any", False),
        ("py311-none-any", True),
        ("py312-none-any", False),
        ("cp311-cp311-manylinux_2_28_x86_64", True),
        ("cp311-cp311-manylinux_2_31_x86_64", False),
        ("cp311-cp311-manylinux_2_17_x86_64.manylinux_2_31_x86_64", True),
        ("cp311-cp311-manylinux2014_x86_64", True),
        ("cp311-cp311-linux_x86_64", True),
        ("cp311-cp311-musllinux_1_2_x86_64", False),
        ("cp311-cp311-macosx_11_0_x86_64", False),
        ("cp311-cp311-manylinux_2_17_aarch64", False),
        ("cp312-cp312-manylinux_2_17_x86_64", False),
        ("cp311-cp311t-manylinux_2_17_x86_64", False),
        ("cp38-abi3-manylinux_2_17_x86_64", True),
        ("cp312-abi3-manylinux_2_17_x86_64", False),
        ("cp310-none-any", False),
        ("cp311-none-any", True),
        ("py3-none-manylinux_2_27_x86_64", True),
        ("pp311-pypy311_pp73-manylinux_2_17_x86_64", False),
    ],
)
def test_a_tag_fits_the_target_or_not(tag: str, fits: bool) -> None:
    assert wheels.fits(f"some_thing-1.0-{tag}.whl", TARGET) is fits


def test_a_name_is_pinned_as_pip_compares_it() -> None:
    assert wheel_names.pin("wheels/Some_Thing.Else-2.13.0+cpu-1-py3-none-any.whl") == "some-thing-else==2.13.0+cpu"
    with pytest.raises(ValueError, match="is not named as a wheel is"):
        wheel_names.pin("wheels/some.tar.gz")


def test_the_oldest_glibc_is_that_of_the_oldest_of_its_tags() -> None:
    assert wheels.glibc("a-1-cp311-cp311-manylinux_2_28_x86_64.manylinux2014_x86_64.whl") == "2.17"
    assert wheels.glibc("a-1-py3-none-any.whl") == ""
