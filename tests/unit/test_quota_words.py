# SPDX-License-Identifier: Apache-2.0
"""Quotas, from words."""

import pytest

from hypercontainer.errors import InvalidArgument
from hypercontainer.model.quotas import read_quota


def test_no_requests_at_all_is_no_quota() -> None:
    """A record with it could not be read again."""
    with pytest.raises(InvalidArgument, match="1 at least"):
        read_quota({"requests": "0"})
    assert read_quota({"requests": "1"}) == {"requests": 1}
