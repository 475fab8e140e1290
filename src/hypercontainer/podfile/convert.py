# SPDX-License-Identifier: Apache-2.0
"""A podfile into the engine's specifications: `docker run`'s meaning of each field."""

from __future__ import annotations

import base64
import binascii
import posixpath
import re
import secrets as random
import string
from typing import Any

from ..errors import InvalidArgument
from ..model import pods, specs
from ..model.devices import parse_device
from ..model.egress import EgressSecret, parse_host, policy
from ..model.log_options import read_log_options
from ..model.network import NetworkRequest
from ..model.rates import parse_allow, parse_rate
from ..model.reference import short_name
from ..model.units import parse_duration, parse_size
from . import document as d

_RESTART: dict[str, specs.RestartName] = {
    "never": "no", "onFailure": "on-failure", "always": "always", "unlessStopped": "unless-stopped",
}  # fmt: skip
_ID_MAX = (1 << 32) - 2  # of users and groups; chown(2)
_RANDOM_LETTERS = 10  # of a generated pod name, as the original's


def size(value: d.Size) -> int:
    """Bytes; a plain number is MB."""
    if isinstance(value, int):
        return parse_size(f"{value}m")
    return parse_size(f"{value}m" if value.strip().isdecimal() else value)


def _legacy_size(value: int | str) -> int:
    """The original took what is below 0 as its default."""
    return 0 if isinstance(value, int) and value < 0 else size(value)


def mode(value: str | int) -> int:
    """Permission bits: octal text, or a number as it is."""
    if isinstance(value, int):
        return value
    if not re.fullmatch(r"(0o)?[0-7]{1,5}", value):
        raise InvalidArgument(f"podfile: invalid permissions {value!r}", hint="write them in octal, such as '0644'")
    return int(value.removeprefix("0o"), 8)


def owner(value: str | int) -> int:
    """A user or group of a file, which is not looked up anywhere."""
    if str(value) in ("root", ""):
        return 0
    if not re.fullmatch("[0-9]{1,10}", str(value)) or int(value) > _ID_MAX:
        raise InvalidArgument(f"podfile: invalid owner {value!r} of a file", hint="give a number, or root")
    return int(value)


def files_to_fetch(podfile: d.Podfile) -> list[d.File]:
    """The files with a URI, wherever they are defined."""
    inline = [m.detail for c in [*podfile.init_containers, *podfile.containers] for m in c.files if m.detail]
    return [f for f in [*podfile.files, *inline] if f.uri]


class _Files:
    """What files contain, by name."""

    def __init__(self, podfile: d.Podfile, fetched: dict[str, bytes]) -> None:
        self._fetched = fetched
        self._files: dict[str, d.File] = {}
        for f in podfile.files:
            if f.name in self._files:
                raise InvalidArgument(f"podfile: two files are called {f.name!r}", hint="rename one")
            self._files[f.name] = f

    def content(self, mount: d.FileMount) -> bytes:
        f = mount.detail or self._files.get(mount.filename)
        if f is None:
            raise InvalidArgument(f"podfile: there is no file {mount.filename!r}", hint="define it below `files`")
        data = self._fetched[f.uri] if f.uri else f.content.encode()
        return _decoded(data, f"file {f.name!r}") if f.encoding == "base64" else data


def _decoded(data: bytes, what: str) -> bytes:
    try:
        return base64.b64decode(data, validate=False)
    except binascii.Error as error:
        raise InvalidArgument(f"podfile: {what} is not base64: {error}", hint="use the encoding raw") from error


def _white_lists(given: d.WhiteLists) -> pods.WhiteLists:
    return pods.WhiteLists(internal_networks=given.internal_networks, external_networks=given.external_networks)


def convert(podfile: d.Podfile, fetched: dict[str, bytes]) -> pods.PodPlan:
    """`fetched` has the content of each URI of `files_to_fetch`.

    :raise InvalidArgument: with the field that is wrong.
    """
    name = podfile.id or "pod-" + "".join(random.choice(string.ascii_letters) for _ in range(_RANDOM_LETTERS))
    files = _Files(podfile, fetched)
    volumes = {v.name: _volume(v) for v in podfile.volumes}
    if len(volumes) != len(podfile.volumes):
        raise InvalidArgument("podfile: two volumes have the same name", hint="rename one")
    containers = []
    for index, c in enumerate([*podfile.init_containers, *podfile.containers]):
        for m in c.volumes:
            if m.detail:
                volumes[m.detail.name] = _volume(m.detail)
        containers.append(_container(podfile, c, name, index, files, init=index < len(podfile.init_containers)))
    ports = [p for m in podfile.portmappings for p in _ports(m.host_port, m.container_port, m.protocol, m.host_ip)]
    ports += [
        p for c in podfile.containers for m in c.ports for p in _ports(m.host_port, m.container_port, m.protocol, "")
    ]
    spec = pods.PodSpec(
        driver=podfile.driver,
        network=podfile.network,
        networks=[
            NetworkRequest(name=n.name, ip=n.ip, ip6=n.ip6, mac=n.mac, aliases=n.aliases) for n in podfile.networks
        ],
        allow=[parse_allow(a) for a in podfile.allow],
        egress=policy(podfile.egress, podfile.allow_hosts, [_injected(podfile, i) for i in podfile.inject_secrets]),
        security_groups=podfile.security_groups,
        ingress_rate=parse_rate(str(podfile.ingress_rate)),
        egress_rate=parse_rate(str(podfile.egress_rate)),
        ttl=parse_duration(podfile.ttl),
        idle_timeout=parse_duration(podfile.idle_timeout),
        ports=ports,
        pid=podfile.pid,
        interfaces=[_interface(i) for i in podfile.interfaces],
        services=[_service(s) for s in podfile.services],
        dns=podfile.dns,
        dns_options=podfile.dns_options,
        dns_search=podfile.dns_search,
        hosts=[specs.HostEntry(ip=h.ip, names=h.names) for h in podfile.hosts],
        white_lists=_white_lists(podfile.portmapping_white_lists),
        sysctls={k: str(v) for k, v in podfile.sysctls.items()},
        devices=[parse_device(d, "podfile: devices:") for d in podfile.devices],
        shm_size=size(podfile.shm_size) or pods.SHM_DEFAULT,
        exit_policy=podfile.exit_policy,
        secrets=list(_own_secrets(podfile)),
    )
    return pods.PodPlan(
        name=name,
        hostname=podfile.hostname,
        vcpus=max(podfile.resource.vcpu, 0),
        memory=_legacy_size(podfile.resource.memory),
        size=podfile.resource.size,
        labels=podfile.labels,
        spec=spec,
        volumes=list(volumes.values()),
        containers=containers,
        secrets=_own_secrets(podfile),
    )


def _own_secrets(podfile: d.Podfile) -> dict[str, bytes]:
    """Those that its containers may have: not what goes to hosts."""
    injected = {i.secret for i in podfile.inject_secrets}
    return {s.name: _secret(s) for s in podfile.secrets if s.name not in injected}


def _injected(podfile: d.Podfile, asked: d.InjectedSecret) -> EgressSecret:
    """:raise InvalidArgument: there is no such secret, or a container has it all the same."""
    secret = next((s for s in podfile.secrets if s.name == asked.secret), None)
    if secret is None:
        raise InvalidArgument(f"podfile: injectSecrets: there is no secret {asked.secret!r}",
                              hint="define it below `secrets`")  # fmt: skip
    for c in [*podfile.init_containers, *podfile.containers]:
        if any(m.secret == asked.secret for m in c.secrets):
            raise InvalidArgument(f"podfile: injectSecrets: container {c.name or c.image} has the secret "
                                  f"{asked.secret!r} itself", hint="leave out one of them")  # fmt: skip
    if not 0 < asked.port < 1 << 16:
        raise InvalidArgument(f"podfile: injectSecrets: invalid port {asked.port}", hint="ports are 1 to 65535")
    host = parse_host(asked.host).host
    value = _secret(secret).rstrip(b"\r\n")  # files end with a line's end
    return EgressSecret(
        name=asked.env or asked.secret, host=host, port=asked.port, header=asked.header, value=value
    )  # fmt: skip


def _secret(s: d.Secret) -> bytes:
    if s.file or s.env:
        raise InvalidArgument(f"podfile: secret {s.name!r}: only a command line can read a file or an environment",
                              hint="send its content")  # fmt: skip
    return _decoded(s.content.encode(), f"secret {s.name!r}") if s.encoding == "base64" else s.content.encode()


def _volume(v: d.Volume) -> pods.VolumeRequest:
    options = {k: str(x) for k, x in v.mount_options.items()}
    options |= {k: x for k, x in (("user", v.option.user), ("keyring", v.option.keyring)) if x}
    return pods.VolumeRequest(
        name=v.name,
        source=v.source,
        format=v.format,
        fstype=v.fstype,
        cache=v.cache,
        read_only=v.read_only,
        size=size(v.size),
        options=options,
        monitors=v.option.monitors,
        mode=None if v.perm == "" else mode(v.perm),
        gid=owner(v.group),
    )


def _interface(i: d.Interface) -> pods.InterfaceSpec:
    return pods.InterfaceSpec(
        bridge=i.bridge, addresses=[i.ip] if i.ip else [], gateway=i.gateway, mac=i.mac, mtu=i.mtu, ifname=i.ifname
    )  # fmt: skip


def _service(s: d.Service) -> pods.Service:
    hosts = [pods.ServiceBackend(host_ip=h.host_ip, host_port=h.host_port) for h in s.hosts]
    return pods.Service(service_ip=s.service_ip, service_port=s.service_port, protocol=s.protocol, hosts=hosts)


def _range(value: d.PortNumber) -> list[int]:
    low, _, high = str(value).partition("-")
    try:
        first, last = int(low), int(high or low)
    except ValueError:
        first, last = 0, -1
    if not 1 <= first <= last <= 65535:
        raise InvalidArgument(f"podfile: invalid port {value!r}", hint="ports are 1 to 65535, ranges such as 8000-8010")
    return list(range(first, last + 1))


def _ports(host: d.PortNumber, container: d.PortNumber, protocol: d.Protocol, address: str) -> list[specs.PortMapping]:
    inside = _range(container)
    outside = _range(host) if host else [0] * len(inside)
    if len(outside) != len(inside):
        raise InvalidArgument(
            f"podfile: the port ranges {host} and {container} differ in length",
            hint="give both the same number of ports",
        )
    return [
        specs.PortMapping(container_port=c, host_port=h, protocol=protocol, host_ip=address)
        for h, c in zip(outside, inside, strict=True)
    ]


# -- containers -----------------------------------------------------------------------------


def _container(
    podfile: d.Podfile, c: d.Container, pod: str, index: int, files: _Files, *, init: bool
) -> specs.ContainerSpec:
    restart = _RESTART[c.restart_policy or podfile.restart_policy]
    if init and restart in ("always", "unless-stopped"):
        restart = "on-failure"  # it is done when it has succeeded
    names = [e.env for e in c.envs]
    if len(set(names)) != len(names):
        raise InvalidArgument(
            f"podfile: container {c.name or c.image}: an environment variable is given twice", hint="leave one out"
        )
    return specs.ContainerSpec(
        image=c.image,
        platform=c.platform,
        name=c.name or f"{pod}-{short_name(c.image)}-{index}",
        base=c.id,
        pod=pod,
        init=init,
        command=c.command,
        entrypoint=c.entrypoint,
        workdir=c.workdir,
        env=[f"{e.env}={_plain(e.value)}" for e in c.envs],
        env_fields={e.env: e.field for e in c.envs if e.field},
        expand=c.expand,
        non_root=c.non_root,
        user=_user(c.user),
        groups=[str(g) for g in c.user.additional_groups],
        tty=c.tty or podfile.tty,
        stdin=c.stdin or c.tty,
        read_only=c.read_only,
        labels=c.labels,
        cache=c.cache,
        aliases=c.aliases,
        resources=specs.Resources(cpus=c.limits.cpus, memory=size(c.limits.memory), pids=c.limits.pids),
        ulimits=[
            specs.Ulimit(name=u.name.lower(), hard=u.hard, soft=u.hard if u.soft is None else u.soft) for u in c.ulimits
        ],
        sysctls={k: str(v) for k, v in c.sysctl.items()},
        cap_add=c.capabilities.add,
        cap_drop=c.capabilities.drop,
        privileged=c.privileged,
        no_new_privileges=c.no_new_privileges,
        seccomp=c.seccomp,
        seccomp_profile=c.seccomp_profile,
        pid=c.pid or "",
        run_init=c.init,
        stop_signal=c.stop_signal,
        stop_timeout=int(parse_duration(c.stop_timeout)),
        restart=specs.RestartPolicy(name=restart, max_retries=c.max_retries),
        depends_on=[specs.Dependency(container=x.container, condition=x.condition) for x in c.depends_on],
        health=_health(c.health_check),
        liveness=_health(c.liveness_check),
        log=_log(c.log or podfile.log, c.log_path),
        mounts=[_mount(m) for m in c.volumes] + [_tmpfs(t) for t in c.tmpfs],
        files=[_file(m, files) for m in c.files],
        secrets=[_secret_mount(s) for s in c.secrets],
    )


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _user(u: d.User) -> str:
    user = str(u.name)
    return f"{user}:{u.group}" if str(u.group) else user


def _log(log: d.Log, path: str) -> specs.LogOptions:
    return read_log_options(log.type, log.config, path=path)


def _health(h: d.HealthCheck | None) -> specs.HealthCheck | None:
    if h is None:
        return None
    command = ["/bin/sh", "-c", h.shell] if h.shell else h.command
    http = (
        specs.HttpCheck(port=h.http.port, path=h.http.path, address=h.http.address, headers=h.http.headers)
        if h.http
        else None
    )
    tcp = specs.TcpCheck(port=h.tcp.port, address=h.tcp.address) if h.tcp else None
    return specs.HealthCheck(
        command=command, http=http, tcp=tcp, interval=parse_duration(h.interval), timeout=parse_duration(h.timeout),
        retries=h.retries, start_period=parse_duration(h.start_period), start_interval=parse_duration(h.start_interval),
    )  # fmt: skip


def _mount(m: d.VolumeMount) -> specs.Mount:
    source = m.detail.name if m.detail else m.volume
    return specs.Mount(target=m.path, source=source, read_only=m.read_only, sub_path=m.sub_path, copy_up=not m.no_copy,
                       propagation=m.propagation)  # fmt: skip


def _tmpfs(t: d.Tmpfs) -> specs.Mount:
    return specs.Mount(type="tmpfs", target=t.path, size=size(t.size), mode=mode(t.perm), read_only=t.read_only)


def _file(m: d.FileMount, files: _Files) -> specs.InjectedFile:
    name = m.filename or (m.detail.name if m.detail else "")
    path = posixpath.join(m.path, name) if m.path.endswith("/") else m.path
    return specs.InjectedFile(
        target=path, content=files.content(m), mode=mode(m.perm), uid=owner(m.user), gid=owner(m.group)
    )


def _secret_mount(s: d.SecretMount) -> specs.SecretMount:
    path = s.path or f"/run/secrets/{s.secret}"
    return specs.SecretMount(secret=s.secret, target=path, mode=mode(s.perm), uid=owner(s.user), gid=owner(s.group))
