# SPDX-License-Identifier: Apache-2.0
"""Every page in Debian's chromium: what it does, that nothing of another host is asked, and that all can use it.

axe-core (https://github.com/dequelabs/axe-core) looks for what keeps people out; serious findings fail. With
`SHOTS=DIRECTORY` pictures of the pages are left there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.e2e.conftest import Daemon, launched

sync_api = pytest.importorskip("playwright.sync_api", reason="`make test-console` installs it")
axe_playwright = pytest.importorskip("axe_playwright_python.sync_playwright")
CHROMIUM = "/usr/bin/chromium"
GRAVE = ("serious", "critical")
WIDTHS = {"wide": (1200, 800), "narrow": (400, 800)}
LISTS = (
    "containers",
    "workloads",
    "new",
    "images",
    "volumes",
    "networks",
    "snapshots",
    "events",
    "quota",
    "usage",
    "audit",
    "host",
    "organisations",
)


@pytest.fixture(scope="module")
def hyper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    root = tmp_path_factory.mktemp("console") / "root"
    settings = root.parent / "hyperd.toml"
    settings.write_text(f"""
console_listen = ["tcp://127.0.0.1:0"]
audit_log = "{root.parent / "audit.log"}"
oidc = {{ issuer = "http://127.0.0.1:1", client_id = "hyper", title = "Example" }}
""")
    with launched(root, "--config", str(settings)) as daemon:
        daemon.ctl("pull", "-q", "builtin:busybox")
        daemon.ctl("volume", "create", "data")
        yield daemon
        daemon.remove_all()


@pytest.fixture(scope="module")
def address(hyper: Daemon) -> str:
    log = (hyper.root.parent / f"{hyper.root.name}-hyperd.log").read_text()
    found = re.search(r"http://127\.0\.0\.1:\d+", log)
    assert found, log
    return found[0]


class Watched:
    """A page of which all that goes wrong is kept."""

    def __init__(self, page: Any, address: str) -> None:
        self.page, self.address = page, address
        self.wrong: list[str] = []
        page.on("console", lambda m: self.wrong.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: self.wrong.append(str(e)))
        page.on("request", self._asked)

    def _asked(self, request: Any) -> None:
        if urlsplit(request.url).netloc != urlsplit(self.address).netloc and not request.url.startswith("data:"):
            self.wrong.append(f"asked of another host: {request.url}")

    def log_in(self, token: str, project: str = "-") -> None:
        self.page.goto(f"{self.address}/")
        self.page.fill("#token", token)
        self.page.click("button")
        self.page.wait_for_selector("text=Log out")  # an administrator is asked for a project first
        self.page.goto(f"{self.address}/p/{project}/containers")

    def check(self, name: str) -> None:
        """:raise AssertionError: somebody cannot use it, or something went wrong in it."""
        found = axe_playwright.Axe().run(self.page).response["violations"]
        grave = [f"{v['id']}: {v['nodes'][0]['html']}" for v in found if v["impact"] in GRAVE]
        assert (grave, self.wrong) == ([], []), name
        wider = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider <= 0, f"{name} is {wider} pixels wider than its window"
        if shots := os.environ.get("SHOTS"):
            self.page.screenshot(path=str(Path(shots) / f"{name}.png"))


@pytest.fixture(params=[(w, c) for w in WIDTHS for c in ("light", "dark")], ids=lambda p: "-".join(p))
def watched(request: pytest.FixtureRequest, address: str) -> Iterator[tuple[Watched, str]]:
    width, scheme = request.param
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        size = dict(zip(("width", "height"), WIDTHS[width], strict=True))
        page = browser.new_context(viewport=size, color_scheme=scheme).new_page()
        page.set_default_timeout(60_000)
        yield Watched(page, address), f"{width}-{scheme}"
        browser.close()


def look_through_files(w: Watched, kind: str, name: str) -> None:
    w.page.goto(f"{w.address}/p/-/containers")
    w.page.click(f"text={name}")
    w.page.click("text=Files")
    w.page.click("text=tmp/")
    w.page.set_input_files("#files", {"name": "a b.bin", "mimeType": "application/x", "buffer": b"sent" * 50_000})
    w.page.click("text=Send >> nth=-1")
    w.page.locator("th", has_text="a b.bin").wait_for()
    w.check(f"files-{kind}")
    with w.page.expect_download() as download:
        w.page.click("text=a b.bin")
    assert Path(download.value.path()).read_bytes() == b"sent" * 50_000
    w.page.once("dialog", lambda dialog: dialog.accept())
    w.page.click("[aria-label='Remove a b.bin']")
    w.page.wait_for_selector("text=Nothing is in this directory")


def test_pages(hyper: Daemon, watched: tuple[Watched, str]) -> None:
    w, kind = watched
    w.page.goto(f"{w.address}/login")
    w.check(f"login-{kind}")
    w.log_in(hyper.out("token", "create", f"t-{kind}", "--scope", "admin"))
    name = f"web-{kind}"
    w.page.click("text=New container")
    w.page.fill("#image", "busybox")
    w.page.fill("#name", name)
    w.page.fill("#command", "sh -c 'while :; do echo working; sleep 0.5; done'")
    w.page.select_option("#size", "S2")
    w.check(f"filled-{kind}")
    w.page.keyboard.press("Tab")
    w.page.press("#command", "Enter")  # by the keyboard alone
    w.page.wait_for_selector(".logs span")
    w.page.locator("[data-value=memory]", has_text="MiB").wait_for()
    w.check(f"container-{kind}")
    w.page.click("text=Terminal")
    w.page.locator(".xterm-rows", has_text="#").wait_for()
    w.page.keyboard.type("echo to-$((40 + 2))\n")
    w.page.locator(".xterm-rows", has_text="to-42").wait_for()
    w.check(f"terminal-{kind}")
    look_through_files(w, kind, name)
    for path in LISTS:
        w.page.goto(f"{w.address}/p/-/{path}")
        w.check(f"{path}-{kind}")
    w.page.goto(f"{w.address}/p/-/containers")
    w.page.click(f"text={name}")
    w.page.once("dialog", lambda dialog: dialog.accept())
    w.page.click("text=Remove")
    w.page.wait_for_url(f"{w.address}/p/-/containers")
    assert w.page.locator(f"text={name}").count() == 0


def test_lists_that_renew_themselves_leave_the_keyboard_where_it_is(
    hyper: Daemon, watched: tuple[Watched, str]
) -> None:
    w, kind = watched
    name = f"d-{kind}"
    hyper.ctl("deployment", "create", "--name", name, "--replicas", "0", "busybox", "sleep", "1000")
    w.log_in(hyper.out("token", "create", f"l-{kind}"))
    with w.page.expect_response(lambda r: urlsplit(r.url).path == "/p/-/containers"):
        pass  # of itself
    w.page.goto(f"{w.address}/p/-/workloads")
    row = w.page.locator("tr", has_text=name)
    remove = row.get_by_role("button", name="Remove")
    remove.focus()
    remove.evaluate("button => { button.dataset.old = 1; }")
    w.page.locator(f"button[id='{remove.get_attribute('id')}']:not([data-old])").wait_for()
    assert w.page.evaluate("document.activeElement.id") == remove.get_attribute("id")
    row.get_by_label("Replicas").focus()
    ask = "!document.getElementById('list').dispatchEvent(new Event('htmx:beforeRequest', "
    assert w.page.evaluate(ask + "{bubbles: true, cancelable: true}))")
    w.check(f"workloads-full-{kind}")
    hyper.ctl("deployment", "rm", name)


def test_a_pull_tells_what_is_wrong(hyper: Daemon, watched: tuple[Watched, str]) -> None:
    w, kind = watched
    w.log_in(hyper.out("token", "create", f"p-{kind}"))
    w.page.goto(f"{w.address}/p/-/images")
    w.page.fill("#pull", "oci:/nowhere:x")
    w.page.click("text=Pull")
    w.page.wait_for_selector("#pulling .wrong")
    assert "takes the scope `host`" in w.page.locator("#pulling").inner_text()


def test_an_owner_manages_members_and_tokens(hyper: Daemon, watched: tuple[Watched, str]) -> None:
    w, kind = watched
    project = hyper.out("organisation", "create", kind) and hyper.out("project", "create", "w", "--organisation", kind)
    for name, role in (("ann", "owner"), ("bob", "viewer")):
        hyper.ctl("user", "create", f"{name}-{kind}")
        hyper.ctl("organisation", "member", "put", kind, f"{name}-{kind}", "--role", role)
    scopes = ("--scope", "manage", "--scope", "operate", "--scope", "audit")
    w.log_in(hyper.out("--project", f"{kind}/w", "token", "create", "t", "--user", f"ann-{kind}", *scopes), project)
    w.page.click("text=Members")
    w.page.fill("#user", f"bob-{kind}")
    w.page.select_option("#role", "auditor")
    w.page.press("#user", "Enter")
    w.page.locator("td", has_text="auditor").wait_for()
    w.check(f"members-{kind}")
    w.page.click("text=Tokens")
    w.page.fill("#name", "ci")
    w.page.press("#name", "Enter")
    w.page.wait_for_selector("#secret")
    w.check(f"tokens-{kind}")
    w.page.click("text=Audit log")
    w.page.locator("td", has_text=f"POST /p/{project}/tokens").first.wait_for()
    w.check(f"audit-{kind}")


def test_a_provider_that_is_not_there_is_told_at_the_door(watched: tuple[Watched, str]) -> None:
    w, kind = watched
    w.page.goto(f"{w.address}/login")
    w.page.click("text=Log in with Example")
    w.page.locator("[role=alert]", has_text="cannot be reached").wait_for()
    w.wrong.clear()  # chromium writes of each answer that is an error
    w.check(f"refused-{kind}")
