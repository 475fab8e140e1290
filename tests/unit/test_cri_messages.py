# SPDX-License-Identifier: Apache-2.0
"""CRI's messages are those that `api.proto` describes, and gRPC is nobody's burden who does not serve CRI."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet


def test_the_compiled_messages_are_those_of_the_description(repository: Path, tmp_path: Path) -> None:
    made = tmp_path / "api.binpb"
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I", "src/hypercontainer/cri", f"--descriptor_set_out={made}",
         "api.proto"],
        cwd=repository, check=True,
    )  # fmt: skip
    kept = (repository / "src/hypercontainer/cri/api.binpb").read_bytes()
    assert FileDescriptorSet.FromString(kept) == FileDescriptorSet.FromString(made.read_bytes()), "run `make proto`"


def test_hyperd_without_cri_has_no_grpc() -> None:
    code = (
        "import hypercontainer.hyperd.daemon, sys; sys.exit('grpc' in sys.modules or 'google.protobuf' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
