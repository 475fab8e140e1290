# SPDX-License-Identifier: Apache-2.0
"""One container of each driver, as people type it: `make test-drivers`, in the lab."""
