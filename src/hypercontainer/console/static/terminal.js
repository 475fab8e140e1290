// SPDX-License-Identifier: Apache-2.0
// A shell of a container: what is typed goes as bytes, the terminal's size as text.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const box = document.getElementById("terminal"), ended = document.getElementById("ended");
  const terminal = new Terminal({ cursorBlink: true, fontSize: 14, theme: { background: "#11151c", foreground: "#e8edf5" }, screenReaderMode: true });
  const fit = new FitAddon.FitAddon();
  terminal.loadAddon(fit);
  terminal.open(box);
  fit.fit();
  const address = new URL(box.dataset.socket, location.href);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(address);
  socket.binaryType = "arraybuffer";
  const encoder = new TextEncoder();
  const tellSize = () => { if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ rows: terminal.rows, columns: terminal.cols })); };
  socket.addEventListener("open", () => { tellSize(); terminal.focus(); });
  socket.addEventListener("message", (event) => {
    if (typeof event.data === "string") ended.textContent = event.data;
    else terminal.write(new Uint8Array(event.data));
  });
  socket.addEventListener("close", () => { if (!ended.textContent) ended.textContent = "The connection has ended."; terminal.options.cursorBlink = false; });
  terminal.onData((text) => { if (socket.readyState === WebSocket.OPEN) socket.send(encoder.encode(text)); });
  terminal.onResize(tellSize);
  new ResizeObserver(() => fit.fit()).observe(box);
});
