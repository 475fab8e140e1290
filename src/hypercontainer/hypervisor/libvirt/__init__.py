# SPDX-License-Identifier: Apache-2.0
"""libvirt: `binding` finds its library, `connection` asks it, `document` describes a domain, `domain` starts and ends
one, `machine` is one that runs, `driver` joins them; `libxl_*` are the same for Xen."""
