"""What a whole run writes is what the table of stages declares."""

import pytest

from tests import declared


@pytest.mark.slow
def test_every_field_of_every_file_is_declared_and_there(undisturbed):
    assert declared.undeclared(undisturbed) == []
