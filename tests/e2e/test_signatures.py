# SPDX-License-Identifier: Apache-2.0
"""Images that are signed, that are not, and that are by somebody else: what the policy says is what is pulled."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.registry import Registry
from tests.unit.layouts import Maker

from .conftest import Daemon, launched

END = bytes(1024)
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
WITHOUT = "this host's skopeo is built without"  # Debian 12's
COSIGN = "application/vnd.dev.cosign.simplesigning.v1+json"


@dataclass
class Site:
    """A registry, keys, and a daemon whose policy has one of them."""

    registry: Registry
    home: Path
    layout: str
    daemon: Daemon

    def skopeo(self, *args: str | Path) -> None:
        subprocess.run(
            ["skopeo", "--insecure-policy", "--registries.d", self.home / "registries.d", *args], check=True,
            capture_output=True, env=os.environ | {"GNUPGHOME": str(self.home / "gnupg")},
        )  # fmt: skip

    def push(self, name: str, *options: str) -> str:
        full = f"{self.registry.address}/{name}"
        self.skopeo("copy", "-q", "--dest-tls-verify=false", *options, self.layout, f"docker://{full}")
        return full

    def pull(self, name: str) -> subprocess.CompletedProcess[str]:
        return self.daemon.ctl("pull", "-q", name, check=False)


def gpg_key(home: Path, who: str) -> bytes:
    """A new one; its public half."""
    (home / "gnupg").mkdir(mode=0o700, exist_ok=True)
    gpg = ["gpg", "--batch", "--homedir", str(home / "gnupg"), "--pinentry-mode", "loopback", "--passphrase", ""]
    subprocess.run([*gpg, "--quick-gen-key", who, "ed25519", "sign", "1d"], check=True, capture_output=True)
    return subprocess.run([*gpg, "--export", who], check=True, capture_output=True).stdout


@pytest.fixture(scope="module")
def site(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("signatures")
    (home / "registries.d").mkdir()
    (home / "registries.d/default.yaml").write_text(
        f"docker:\n  {registry.address}:\n    lookaside: file://{home}/lookaside\n"
        f"    lookaside-staging: file://{home}/lookaside\n    use-sigstore-attachments: true\n"
        f"    sigstore: file://{home}/lookaside\n    sigstore-staging: file://{home}/lookaside\n"
    )
    (home / "ours.gpg").write_bytes(gpg_key(home, "ours@example.org"))
    gpg_key(home, "theirs@example.org")
    key = ec.generate_private_key(ec.SECP256R1())
    (home / "ours.pub").write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    (home / "ours.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    signed = [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": str(home / "ours.gpg")}]
    sigstore = [{"type": "sigstoreSigned", "keyPath": str(home / "ours.pub"),
                 "signedIdentity": {"type": "matchRepository"}}]  # fmt: skip
    policy = {
        "default": [{"type": "reject"}],
        "transports": {
            "docker": {f"{registry.address}/gpg": signed, f"{registry.address}/sig": sigstore,
                       f"{registry.address}/any": [{"type": "insecureAcceptAnything"}]},
            "oci": {"": [{"type": "reject"}]},
        },
    }  # fmt: skip
    (home / "policy.json").write_text(json.dumps(policy))
    strict = {"default": [{"type": "reject"}], "transports": {"docker": {registry.address: signed}}}
    (home / "strict.json").write_text(json.dumps(strict))
    config = home / "hyperd.toml"
    config.write_text(
        f'image_policy = "{home}/policy.json"\nimage_signatures = "{home}/registries.d"\nfactory = false\n'
        f'image_policies = {{strict = "{home}/strict.json"}}\n'
    )
    make = Maker(home / "layout")
    layout = make.image(make.layer(iter([END])))
    try:
        with launched(home / "root", "--config", str(config)) as daemon:
            yield Site(registry, home, layout, daemon)
    finally:  # gpg has left its agent
        subprocess.run(["gpgconf", "--homedir", home / "gnupg", "--kill", "all"], check=True)


def test_simple_signing(site: Site) -> None:
    good = site.push("gpg/good:1", "--sign-by", "ours@example.org")
    assert site.pull(good).returncode == 0
    bare = site.push("gpg/bare:1")
    refused = site.pull(bare)
    assert refused.returncode == 1 and "the image policy refuses it: " in refused.stderr, refused.stderr
    assert "signature" in refused.stderr and "(`image_policy`)" in refused.stderr
    other = site.push("gpg/other:1", "--sign-by", "theirs@example.org")
    refused = site.pull(other)
    assert refused.returncode == 1 and "the image policy refuses it: " in refused.stderr, refused.stderr
    listed = site.daemon.out("images")
    assert "gpg/good" in listed and "gpg/bare" not in listed and "gpg/other" not in listed


def test_a_signature_of_another_name_is_none(site: Site) -> None:
    """Or a signed old image could be shown as any other."""
    site.push("gpg/moved:1", "--sign-by", "ours@example.org", "--sign-identity", f"{site.registry.address}/gpg/good:1")
    refused = site.pull(f"{site.registry.address}/gpg/moved:1")
    assert refused.returncode == 1 and "the image policy refuses it: " in refused.stderr


def cosign(site: Site, name: str, key: ec.EllipticCurvePrivateKey) -> None:
    """As `cosign sign --key` does: an artifact beside the image, with the signature in an annotation."""
    base = f"http://{site.registry.address}/v2/{name}"
    request = urllib.request.Request(f"{base}/manifests/1", headers={"Accept": MANIFEST})
    with urllib.request.urlopen(request) as answer:
        digest = "sha256:" + hashlib.sha256(answer.read()).hexdigest()
    payload = json.dumps({
        "critical": {
            "identity": {"docker-reference": f"{site.registry.address}/{name}"},
            "image": {"docker-manifest-digest": digest}, "type": "cosign container image signature",
        },
        "optional": None,
    }).encode()  # fmt: skip
    signature = base64.b64encode(key.sign(payload, ec.ECDSA(hashes.SHA256()))).decode()
    config = b"{}"
    layer = describe(payload, COSIGN) | {"annotations": {"dev.cosignproject.cosign/signature": signature}}
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": describe(config, "application/vnd.oci.image.config.v1+json"), "layers": [layer],
    }).encode()  # fmt: skip
    for blob in (payload, config):
        with urllib.request.urlopen(urllib.request.Request(f"{base}/blobs/uploads/", method="POST")) as answer:
            place = answer.headers["Location"]
        put(f"{place}&digest=sha256:{hashlib.sha256(blob).hexdigest()}", blob, "application/octet-stream")
    put(f"{base}/manifests/{digest.replace(':', '-')}.sig", manifest, MANIFEST)


def describe(data: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{hashlib.sha256(data).hexdigest()}", "size": len(data)}


def put(url: str, data: bytes, kind: str) -> None:
    urllib.request.urlopen(urllib.request.Request(url, data, {"Content-Type": kind}, method="PUT")).close()


def test_sigstore(site: Site) -> None:
    loaded = serialization.load_pem_private_key((site.home / "ours.key").read_bytes(), None)
    assert isinstance(loaded, ec.EllipticCurvePrivateKey)
    for name, key in (("good", loaded), ("other", ec.generate_private_key(ec.SECP256R1())), ("bare", None)):
        full = site.push(f"sig/{name}:1")
        if key:
            cosign(site, f"sig/{name}", key)
        done = site.pull(full)
        if WITHOUT in done.stderr:  # no signature is good then
            assert done.returncode == 1
            continue
        assert done.returncode == (0 if name == "good" else 1), (name, done.stderr)
        assert name == "good" or "the image policy refuses it: " in done.stderr, done.stderr


def test_what_the_policy_does_not_name_is_refused_and_digests_are_kept(site: Site) -> None:
    unnamed = site.pull(site.push("else/x:1"))
    assert unnamed.returncode == 1 and "the image policy refuses it: " in unnamed.stderr
    refused = site.daemon.ctl("pull", "-q", site.layout, check=False)
    assert refused.returncode == 1 and "the image policy refuses it: " in refused.stderr, refused.stderr
    full = site.push("any/x:1")
    request = urllib.request.Request(
        f"http://{site.registry.address}/v2/any/x/manifests/1",
        headers={"Accept": MANIFEST},
    )
    with urllib.request.urlopen(request) as answer:
        digest = "sha256:" + hashlib.sha256(answer.read()).hexdigest()
    repository = full.removesuffix(":1")
    assert site.pull(f"{repository}@{digest}").returncode == 0
    wrong = site.pull(f"{repository}@sha256:{'0' * 64}")
    assert wrong.returncode == 1 and "no such image or tag" in wrong.stderr
    assert site.daemon.ctl("inspect", f"{repository}@{digest}", check=False).returncode == 0


def test_a_project_may_take_other_images_than_the_host(site: Site) -> None:
    ctl, bare = site.daemon.ctl, site.push("any/bare:1")
    good = site.push("any/good:1", "--sign-by", "ours@example.org")
    ctl("organisation", "create", "blue")
    for project in ("web", "db"):
        ctl("project", "create", project, "--organisation", "blue")
    ctl("project", "restrict", "web", "--signatures", "strict")
    assert ctl("pull", "-q", bare).returncode == 0 == ctl("--project", "db", "pull", "-q", bare).returncode
    refused = ctl("--project", "web", "pull", "-q", bare, check=False)
    assert refused.returncode == 1 and "the image policy refuses it: " in refused.stderr, refused.stderr
    assert ctl("--project", "web", "pull", "-q", good).returncode == 0
    archive = site.home / "archive"
    ctl("--project", "db", "save", "-o", archive, bare)
    refused = ctl("--project", "web", "load", "-q", "-i", archive, check=False)
    assert refused.returncode == 1 and "it accepts nothing unsigned by" in refused.stderr, refused.stderr
    listed = site.daemon.out("--project", "web", "images")
    assert "any/good" in listed and "any/bare" not in listed
    unknown = ctl("project", "restrict", "web", "--signatures", "none", check=False)
    assert unknown.returncode == 1 and "hyperd's configuration has no 'none' in `image_policies`" in unknown.stderr
    ctl("project", "restrict", "web")
    assert ctl("--project", "web", "pull", "-q", bare).returncode == 0


def test_a_policy_that_is_none_ends_the_start(site: Site, tmp_path: Path) -> None:
    for text, says in (("", "cannot be read"), ("{}", "has no `default`")):
        (tmp_path / "policy.json").write_text(text)
        (tmp_path / "hyperd.toml").write_text(f'image_policy = "{tmp_path}/policy.json"\n')
        with launched(tmp_path / "root", "--config", str(tmp_path / "hyperd.toml")) as daemon:
            assert daemon.process.wait(30) == 1
        log = (tmp_path / "root-hyperd.log").read_text()
        assert says in log
