# SPDX-License-Identifier: Apache-2.0
"""What all front ends over HTTP share: accepting connections, knowing who asks, reading bodies, the audit log."""
