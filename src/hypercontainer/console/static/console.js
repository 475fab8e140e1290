// SPDX-License-Identifier: Apache-2.0
// What pages do in the browser beside htmx: output and figures as they come, pulls with progress, questions.
"use strict";

const KEPT = 5000; // lines of output that a page holds
const POINTS = 60; // figures in a chart

function binary(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) { bytes /= 1024; unit += 1; }
  return `${bytes.toFixed(unit && bytes < 10 ? 1 : 0)} ${units[unit]}`;
}

function listen(address, each) {
  const source = new EventSource(address);
  source.addEventListener("message", (event) => each(JSON.parse(event.data)));
  source.addEventListener("end", () => source.close());
}

function followLogs(box) {
  listen(box.dataset.logs, (records) => {
    const atEnd = box.scrollTop + box.clientHeight >= box.scrollHeight - 8;
    for (const [stream, text] of records) {
      const part = document.createElement("span");
      if (stream === "stderr") part.className = "err";
      part.textContent = text;
      box.append(part);
    }
    while (box.childElementCount > KEPT) box.firstElementChild.remove();
    if (atEnd) box.scrollTop = box.scrollHeight;
  });
}

function drawStats(box) {
  const series = { cpu: [], memory: [], pids: [] };
  let before = null;
  listen(box.dataset.stats, (figures) => {
    const now = Date.parse(figures.readAt);
    const cpu = before ? (figures.cpuUsec - before.cpu) / 10 / Math.max(1, now - before.now) : 0; // per cent of one
    before = { cpu: figures.cpuUsec, now };
    const words = { cpu: `${cpu.toFixed(1)} %`, memory: `${binary(figures.memory)} of ${binary(figures.memoryLimit)}`, pids: `${figures.pids}` };
    const most = { cpu: 100 * figures.vcpus, memory: figures.memoryLimit || 1, pids: 0 };
    const values = { cpu, memory: figures.memory, pids: figures.pids };
    for (const [name, points] of Object.entries(series)) {
      points.push(values[name]);
      if (points.length > POINTS) points.shift();
      const top = most[name] || Math.max(4, ...points);
      const line = points.map((y, x) => `${(x * 120) / (POINTS - 1)},${39 - 38 * Math.min(1, y / top)}`).join(" ");
      box.querySelector(`[data-line=${name}]`).setAttribute("points", line);
      box.querySelector(`[data-value=${name}]`).textContent = words[name];
    }
  });
}

function followEvents(body) {
  listen(body.dataset.events, (event) => {
    const row = document.createElement("tr");
    const words = [event.time.slice(0, 19).replace("T", " "), `${event.type} ${event.action}`, (event.attributes || {}).name || event.id.slice(0, 12), event.principal || ""];
    for (const word of words) {
      const cell = document.createElement("td");
      cell.textContent = word;
      row.append(cell);
    }
    body.prepend(row);
    while (body.childElementCount > 500) body.lastElementChild.remove();
  });
}

async function pull(form) {
  const told = document.getElementById("pulling"), button = form.querySelector("button");
  const bars = new Map();
  const say = (text) => { const line = document.createElement("p"); line.className = "wrong"; line.textContent = text; told.replaceChildren(line); };
  button.disabled = true;
  told.replaceChildren();
  try {
    const answer = await fetch(form.dataset.pull, { method: "POST", body: new URLSearchParams(new FormData(form)), headers: { "HX-Request": "true" } });
    if (!answer.ok || !(answer.headers.get("Content-Type") || "").startsWith("text/event-stream")) {
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      say(page.body.textContent.trim() || `the answer was ${answer.status}`);
      return;
    }
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      rest += value;
      const pieces = rest.split("\n\n");
      rest = pieces.pop();
      for (const piece of pieces.filter((p) => p.startsWith("data: "))) {
        const update = JSON.parse(piece.slice(6));
        if (update.error) { say(update.error); return; }
        if (update.done) { location.assign(form.dataset.then); return; }
        if (!bars.has(update.id)) {
          const line = document.createElement("p"), label = document.createElement("span"), bar = document.createElement("progress");
          line.append(bar, " ", label);
          told.append(line);
          bars.set(update.id, { bar, label });
        }
        const { bar, label } = bars.get(update.id);
        label.textContent = `${update.id.slice(0, 24)} ${update.status}`;
        if (update.total) { bar.max = update.total; bar.value = update.current; }
      }
    }
  } catch (error) {
    say(`hyperd did not answer: ${error.message}`);
  } finally {
    button.disabled = false;
  }
}

function sendFile(address, file, csrf, told) {
  const line = document.createElement("p"), label = document.createElement("span"), bar = document.createElement("progress");
  label.textContent = file.name;
  bar.setAttribute("aria-label", file.name);
  line.append(bar, " ", label);
  told.append(line);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.upload.addEventListener("progress", (e) => { if (e.lengthComputable) { bar.max = e.total || 1; bar.value = e.loaded; } });
    request.addEventListener("load", () => {
      if (request.status === 204) { resolve(); return; }
      const page = new DOMParser().parseFromString(request.responseText, "text/html");
      reject(new Error(page.body.textContent.trim() || `the answer was ${request.status}`));
    });
    request.addEventListener("error", () => reject(new Error("hyperd did not answer")));
    request.open("POST", `${address}&name=${encodeURIComponent(file.name)}`);
    request.setRequestHeader("X-CSRF", csrf);
    request.setRequestHeader("HX-Request", "true");
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.send(file);
  });
}

async function upload(form) {
  const told = document.getElementById("sending"), button = form.querySelector("button");
  const csrf = JSON.parse(document.body.getAttribute("hx-headers"))["X-CSRF"];
  button.disabled = true;
  told.replaceChildren();
  try {
    for (const file of form.querySelector("input[type=file]").files) await sendFile(form.dataset.upload, file, csrf, told);
    location.reload();
  } catch (error) {
    const line = document.createElement("p");
    line.className = "wrong";
    line.textContent = error.message;
    told.append(line);
    button.disabled = false;
  }
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.upload) { event.preventDefault(); upload(form); return; }
  if (form.dataset.pull) { event.preventDefault(); pull(form); return; }
  if (form.dataset.confirm && !window.confirm(form.dataset.confirm)) { event.preventDefault(); return; }
  for (const button of form.querySelectorAll("button")) button.disabled = true; // once is enough
});
// A list that is fetched anew by itself waits while somebody writes in it. What else has the focus keeps it, by its id.
document.addEventListener("htmx:beforeRequest", (event) => {
  const at = document.activeElement;
  if (event.target.id === "list" && event.target.contains(at) && at.matches("input")) event.preventDefault();
});
window.addEventListener("pageshow", () => { for (const button of document.querySelectorAll("button[disabled]")) button.disabled = false; });
document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("[data-logs]").forEach(followLogs);
  document.querySelectorAll("[data-stats]").forEach(drawStats);
  document.querySelectorAll("[data-events]").forEach(followEvents);
});
