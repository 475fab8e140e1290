# SPDX-License-Identifier: Apache-2.0
"""Dockerfiles: parts of the syntax, and some in the shape of images that people use."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_TIME = 1_500_000_000  # of the files of every context


@dataclass(frozen=True)
class Case:
    """`options` are flags for both clients; `{}` in them is the context."""

    name: str
    about: str
    dockerfile: str
    files: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    more: Callable[[Path], None] = lambda _: None  # what else the context has

    def make(self, parent: Path) -> Path:
        """Its context."""
        root = parent / self.name
        for name, text in {"Dockerfile": self.dockerfile, **self.files}.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755 if text.startswith("#!") else 0o644)
        self.more(root)
        for path in [*root.rglob("*"), root]:
            os.utime(path, (_TIME, _TIME), follow_symlinks=False)
        return root


def _links(root: Path) -> None:
    (root / "tree/link").symlink_to("deep/file")
    (root / "tree/dangling").symlink_to("/nowhere")
    os.link(root / "tree/deep/file", root / "tree/same")
    (root / "tree/empty").mkdir()
    (root / "tree/sticky").mkdir()
    (root / "tree/sticky").chmod(0o1777)


def _archives(root: Path) -> None:
    for kind in ("gz", "xz"):
        with tarfile.open(root / f"a.tar.{kind}", f"w:{kind}") as tar:  # type: ignore[call-overload]
            info = tarfile.TarInfo(f"from-{kind}/file")
            info.size, info.mode, info.uid, info.gid, info.mtime = 4, 0o640, 12, 34, _TIME
            tar.addfile(info, io.BytesIO(b"text"))


STAGES = """\
ARG BASE=busybox
FROM ${BASE} AS made
ARG GREETING=hello
WORKDIR /work
COPY . .
RUN echo "$GREETING" >said && ls -A >listed
FROM made AS unused
RUN exit 1
FROM busybox
COPY --from=made --chown=1000:1000 /work/said /work/listed /srv/
ENTRYPOINT ["cat", "/srv/said"]
"""
HEREDOCS = """\
FROM busybox
RUN <<EOF
set -e
mkdir -p /a/b
echo "$HOME" >/a/home
EOF
COPY <<one.txt <<"two.txt" /texts/
is $PATH
one.txt
is not $PATH
two.txt
COPY --chmod=755 <<-EOT /bin/hello
\t#!/bin/sh
\techo hello
EOT
"""
MOUNTS = """\
FROM busybox AS made
RUN --mount=type=cache,target=/cache,id=compare,sharing=locked echo 1 >/cache/one && cp /cache/one /one
RUN --mount=type=bind,target=/context cp /context/data /data
FROM busybox
RUN --mount=type=bind,from=made,source=/one,target=/mnt/one --mount=type=tmpfs,target=/scratch \\
    cp /mnt/one /two && touch /scratch/x
RUN --mount=type=secret,id=word,mode=0440,uid=7 stat -c %a:%u /run/secrets/word >/how && cp /run/secrets/word /word
"""
COPIES = """\
FROM busybox
COPY tree /tree/
COPY tree/deep/fi* tree/other /picked/
COPY --chown=12:34 --chmod=4750 tree/other /bin/other
COPY --link tree/deep /linked/
COPY --link --chown=5:6 tree/other /linked/owned
COPY --chown=root:root tree/other /by-name
WORKDIR /made/by/workdir
COPY tree/other .
"""
CONFIGURATION = """\
ARG VERSION=3
FROM busybox
ARG VERSION
ARG UNSET
ENV A=one B="two words" C=${A}-${VERSION:-none} D=${UNSET:+set}
LABEL a="x" "b.c"="y z" version=$VERSION
EXPOSE 80 443/tcp 53/udp
VOLUME ["/data", "/more"]
USER 1000:1000
WORKDIR /home/$A
WORKDIR below
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s --timeout=2s --start-period=1s --retries=4 CMD test -e /data
SHELL ["/bin/sh", "-ec"]
ONBUILD COPY . /app
ONBUILD RUN id -u
ENTRYPOINT ["sh", "-c"]
CMD ["env"]
"""
TREE = """\
FROM busybox
RUN rm /etc/group && mkdir /gone && touch /gone/file && chmod 2755 /srv 2>/dev/null || mkdir -m 2755 /srv
RUN rm -r /gone && ln -s /bin/busybox /link && ln /bin/busybox /hard && mkfifo /pipe && chown 3:4 /link -h
RUN mkdir -m 1777 /shared && touch /shared/x && chmod 4711 /shared/x && rm -rf /root && mkdir /root && touch /root/new
"""
SERVER = """\
# in the shape of docker-library's redis and postgres
FROM busybox
RUN set -eux; echo server:x:999: >>/etc/group; echo server:x:999:999::/var/lib/server:/bin/sh >>/etc/passwd
ENV SERVER_VERSION 7.2
RUN set -eux; mkdir -p /var/lib/server /docker-entrypoint-initdb.d; chown server:server /var/lib/server; \\
    chmod 1777 /var/lib/server
VOLUME /var/lib/server
WORKDIR /var/lib/server
COPY docker-entrypoint.sh /usr/local/bin/
ENTRYPOINT ["docker-entrypoint.sh"]
STOPSIGNAL SIGQUIT
EXPOSE 6379
CMD ["server"]
"""

CASES = [
    Case("stages", "several stages, one that is not needed, ARG before FROM", STAGES, {"kept": "1"}),
    Case("heredocs", "RUN and COPY of heredocs", HEREDOCS),
    Case("mounts", "cache, bind, tmpfs and secret mounts", MOUNTS, {"data": "data", "word": "secret\n"},
         ("--secret", "id=word,src={}/word")),
    Case("copies", "COPY with --chown, --chmod, --link, patterns, links", COPIES,
         {"tree/deep/file": "f", "tree/other": "o"}, (), _links),
    Case("configuration", "ENV LABEL EXPOSE VOLUME USER WORKDIR STOPSIGNAL HEALTHCHECK SHELL ONBUILD ENTRYPOINT CMD",
         CONFIGURATION, {}, ("--build-arg", "VERSION=4", "--label", "given=yes")),
    Case("triggers", "FROM an image with ONBUILD", "FROM compare:configuration\n", {"inner": "x"}),
    Case("ignored", ".dockerignore with exceptions", "FROM busybox\nCOPY . /all\n",
         {"a.log": "", "logs/b.log": "", "logs/keep.log": "", "src/c": "", "src/d.tmp": "",
          ".dockerignore": "**/*.log\n!logs/keep.log\nsrc/*.tmp\n"}),
    Case("archives", "ADD of archives, unpacked and not",
         "FROM scratch\nADD a.tar.gz a.tar.xz /\nCOPY a.tar.gz /packed/\n", {}, (), _archives),
    Case("tree", "whiteouts, links, pipes, bits and owners that RUN makes", TREE),
    Case("server", "in the shape of docker-library's servers", SERVER,
         {"docker-entrypoint.sh": '#!/bin/sh\nset -e\nexec "$@"\n'}),
    Case("scratch", "in the shape of docker-library's hello-world", 'FROM scratch\nCOPY hello /\nCMD ["/hello"]\n',
         {"hello": "#!/bin/sh\n"}),
]  # fmt: skip
