# SPDX-License-Identifier: Apache-2.0
"""Firecracker's machines that are saved while they run, forked, and put on the disk: what tests/vm asks of QEMU's."""

from __future__ import annotations

from tests.vm.test_forks import (
    test_a_fork_goes_on_where_its_parent_was,
    test_a_pod_of_several_containers,
    test_a_snapshot_outlives_its_pod_and_the_daemon,
    test_what_cannot_be_saved_is_refused_first,
    test_what_is_its_own,
)
from tests.vm.test_suspend import (
    test_forks_before_and_after,
    test_it_goes_on_where_it_was,
    test_the_next_daemon_resumes_it,
)

__all__ = [
    "test_a_fork_goes_on_where_its_parent_was",
    "test_a_pod_of_several_containers",
    "test_a_snapshot_outlives_its_pod_and_the_daemon",
    "test_forks_before_and_after",
    "test_it_goes_on_where_it_was",
    "test_the_next_daemon_resumes_it",
    "test_what_cannot_be_saved_is_refused_first",
    "test_what_is_its_own",
]
