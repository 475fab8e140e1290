# SPDX-License-Identifier: Apache-2.0
"""`--format`: what Docker's documentation shows, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from hypercontainer.errors import InvalidArgument
from hypercontainer.hyperctl.output import render, show

WEB: dict[str, Any] = {
    "id": "0123456789ab", "name": "/web", "names": "web", "image": "nginx:1", "running": True, "pid": 7,
    "labels": {"b": "2", "a": "1"}, "nothing": None, "share": 0.5,
    "config": {"image": "nginx:1", "cmd": ["sh", "-c", "true"], "env": ["A=1", "B=2"]},
    "logPath": "/var/log", "mounts": [{"source": "/a", "destination": "/b"}, {"source": "v", "destination": "/c"}],
    "networkSettings": {
        "ports": {"80/tcp": [{"hostIp": "0.0.0.0", "hostPort": "8080"}], "53/udp": []},
        "networks": {"default": {"ipAddress": "10.0.0.2", "macAddress": "02:00"}},
    },
}  # fmt: skip


# Most are from docs.docker.com/engine/cli/formatting and the pages of `docker inspect` and `docker ps`.
@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.ID}}: {{.Names}}", "0123456789ab: web"),
        ("{{.LogPath}}", "/var/log"),
        ("{{.Config.Image}}", "nginx:1"),
        ("{{json .Config.Cmd}}", '["sh","-c","true"]'),
        ("{{json .}}".replace(".", ".Labels"), '{"b":"2","a":"1"}'),
        ('{{join .Config.Cmd " , "}}', "sh , -c , true"),
        ('{{join (slice .Config.Cmd 0 2) "/"}}', "sh/-c"),
        ("{{lower .Image}} {{upper .Names}} {{title .Names}}", "nginx:1 WEB Web"),
        ('{{split .Image ":"}}', "[nginx 1]"),
        ('{{range split .Image ":"}}{{println .}}{{end}}', "nginx\n1\n"),
        ('{{pad .Names 2 3}}|', "  web   |"),
        ("{{truncate .ID 3}}", "012"),
        ("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "10.0.0.2"),
        ("{{range.NetworkSettings.Networks}}{{.MacAddress}}{{end}}".replace("range.", "range ."), "02:00"),
        ("{{range $p, $conf := .NetworkSettings.Ports}} {{$p}} -> {{if $conf}}{{(index $conf 0).HostPort}}"
         "{{else}}none{{end}}{{end}}", " 53/udp -> none 80/tcp -> 8080"),
        ('{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}', "8080"),
        ('{{with index .NetworkSettings.Ports "80/tcp"}}{{len .}}{{end}}', "1"),
        ("{{with .Nothing}}some{{else}}none{{end}}", "none"),
        ("{{range .Mounts}}{{.Source}}:{{.Destination}} {{end}}", "/a:/b v:/c "),
        ("{{range $i, $m := .Mounts}}{{$i}}={{$m.Source}};{{end}}", "0=/a;1=v;"),
        ("{{range .Config.Env}}{{$.Names}} {{.}}\\n{{end}}", "web A=1\nweb B=2\n"),
        ("{{if .Running}}up{{else}}down{{end}} {{.Running}} {{.Pid}} {{.Share}}", "up true 7 0.5"),
        ("{{if not .Running}}a{{else if eq .Pid 6 7}}b{{else}}c{{end}}", "b"),
        ("{{if and .Running (gt .Pid 5) (ne .Names `x`)}}y{{end}}{{or .Nothing .Names}}", "yweb"),
        ('{{printf "%s has %d, %5.1f%% %q %-4s|" .Names .Pid .Share .Names "x"}}', 'web has 7,   0.5% "web" x   |'),
        ("{{.Labels}} {{.Config.Cmd}} {{.Nothing}}", "map[a:1 b:2] [sh -c true] <no value>"),
        ("{{/* nothing */}}a {{- 1 -}} b", "a1b"),
        ("{{$n := .Names}}{{$n}}{{.Names | upper | printf `%s!`}}", "webWEB!"),
        ("{{ .Names }}{{\"}}\"}}{{`}}`}}", "web}}}}"),
        ("plain } text {", "plain } text {"),
    ],
)  # fmt: skip
def test_what_dockers_documentation_shows(template: str, text: str) -> None:
    assert render(template, WEB) == text


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{.Colour}}", "there is no field 'Colour'"),
        ("{{.Names.First}}", "has no field 'First'"),
        ("{{range .Names}}{{end}}", "range can't iterate over web"),
        ("{{range .Mounts}}", "range has no end"),
        ("{{if .Running}}{{else", "not closed"),
        ("{{end}}", "unexpected end"),
        ("{{else}}", "unexpected else"),
        ("{{such .Names}}", "function 'such' is not defined"),
        ("{{$x}}", "undefined variable"),
        ("{{}}", "something is missing"),
        ("{{(.Names}}", "a parenthesis is not closed"),
        ("{{.Names ^}}", "unexpected"),
        ("{{.Names .Image}}", "unexpected '.Image'"),
        ("{{index .Mounts 5}}", "index out of range"),
        ("{{lt .Names 1}}", "not supported"),
        ("{{join .Names}}", "missing"),
        ("{{.Names | .Image}}", "cannot take what is piped"),
        ('{{printf "%d" .Names}}', "%d format"),
    ],
)
def test_what_is_no_template(template: str, why: str) -> None:
    with pytest.raises(InvalidArgument, match="is not understood: ") as error:
        render(template, WEB)
    assert why in str(error.value)


@pytest.mark.parametrize(
    ("template", "lines"),
    [
        ("table {{.ID}}\\t{{.Names}}", ["CONTAINER ID   NAMES", "0123456789ab   web"]),
        ("table {{.Names}}\t{{json .Labels}}", ["NAMES     LABELS", 'web       {"b":"2","a":"1"}']),
        ("table {{.Config.Image}}\t{{upper .Names}}", ["IMAGE     NAMES", "nginx:1   WEB"]),
        ("table {{.Names}}{{.Pid}}", ["NAMESPID", "web7"]),
        ('table {{.Names}}\t{{join .Config.Cmd " "}}', ["NAMES     CMD", "web       sh -c true"]),
    ],
)
def test_tables_with_heads(capsys: pytest.CaptureFixture[str], template: str, lines: list[str]) -> None:
    show([WEB], template, [], lambda _: [], heads={"id": "CONTAINER ID"})
    assert capsys.readouterr().out.splitlines() == lines


def test_a_table_of_nothing_has_no_lines_that_are_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    show([], "table {{.Names}}", [], lambda _: [])
    assert len(capsys.readouterr().out.splitlines()) <= 1
