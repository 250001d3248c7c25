"""Makes failing asserts of the shipped kit readable, in both kinds of install."""

import pytest

pytest.register_assert_rewrite("stowage.testing")
