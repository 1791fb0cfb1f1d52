"use strict";

const $ = (id) => document.getElementById(id);
let rates = [];  // requests per second, the last minute

// -- the live panel: one EventSource, one event a second

const source = new EventSource("/events");
source.addEventListener("begin", (event) => {
  const figures = JSON.parse(event.data);
  rates = figures.rates;
  display(figures);
});
source.addEventListener("tick", (event) => {
  const figures = JSON.parse(event.data);
  rates.push(figures.rate);
  if (rates.length > 60) rates.shift();
  display(figures);
});
source.onerror = () => setLink("reconnecting", "off");

function display(figures) {
  setLink("live", "on");
  $("requests").value = figures.requests.toLocaleString("en");
  $("connections").value = figures.connections.toLocaleString("en");
  $("uptime").value = duration(figures.uptime);
  $("time").value = figures.time;
  $("rate").textContent = figures.rate;
  if (rates.length) draw();
}

function setLink(text, kind) {
  $("link").textContent = text;
  $("link").className = "badge " + kind;
}

function duration(seconds) {
  const s = Math.floor(seconds), pad = (n) => String(n).padStart(2, "0");
  const clock = pad(Math.floor(s / 60) % 60) + ":" + pad(s % 60);
  return s < 3600 ? clock : Math.floor(s / 3600) + ":" + clock;
}

function draw() {
  const top = Math.max(2, ...rates);
  const points = rates.map((rate, i) => {
    const x = 600 - (rates.length - 1 - i) * 600 / 59;
    return x.toFixed(1) + "," + (78 - 74 * rate / top).toFixed(1);
  });
  const first = points[0].split(",")[0];
  $("line").setAttribute("d", "M" + points.join("L"));
  $("area").setAttribute("d", "M" + first + ",80L" + points.join("L") + "L600,80Z");
}

// -- every event of the process, over a WebSocket

const FEED_ROWS = 60;
let feed = null;

function watch() {
  feed = new WebSocket(location.origin.replace(/^http/, "ws") + "/live");
  feed.onopen = () => setFeedLink("watching", "on");
  feed.onmessage = (event) => {
    const { events, left_out } = JSON.parse(event.data);
    for (const { conn, event, data } of events) addRow("conn " + conn, event, data);
    if (left_out) addRow("", "", "and " + left_out + " more");
  };
  feed.onclose = () => {
    setFeedLink("reconnecting", "off");
    setTimeout(watch, 1000);
  };
}

function setFeedLink(text, kind) {
  $("feed-link").textContent = text;
  $("feed-link").className = "badge " + kind;
}

function addRow(...cells) {
  const row = document.createElement("li");
  for (const text of cells) row.append(Object.assign(document.createElement("span"), { textContent: text }));
  $("feed").prepend(row);
  while ($("feed").children.length > FEED_ROWS) $("feed").lastChild.remove();
}

$("say").addEventListener("submit", (event) => {
  event.preventDefault();
  if ($("words").value && feed.readyState === WebSocket.OPEN) feed.send($("words").value);
  $("words").value = "";
});

watch();

// -- the buttons

const actions = {
  async echo() {
    const body = JSON.stringify({ hello: "asyncmg", at: new Date().toISOString() });
    const response = await fetch("/api/echo?from=page", {
      method: "POST", body, headers: { "Content-Type": "application/json" },
    });
    const told = await response.json();
    told.headers = told.headers.length + " header fields";
    return JSON.stringify(told, null, 2);
  },
  async upload() {
    const data = new Uint8Array(5 << 20);
    for (let at = 0; at < data.length; at += 65536) crypto.getRandomValues(data.subarray(at, at + 65536));
    const response = await fetch("/upload", { method: "POST", body: data });
    const told = await response.json();
    let same = "";
    if (crypto.subtle) {
      const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
      const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
      same = hex === told.sha256 ? "\nThe browser computes the same digest." : "\nDIGESTS DIFFER: " + hex;
    }
    return JSON.stringify(told, null, 2) + same;
  },
  async stream() {
    const reader = (await fetch("/stream")).body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return text + "end of the stream";
      show(text += value);
    }
  },
  async burst() {
    const began = performance.now();
    const responses = await Promise.all(Array.from({ length: 100 }, (_, i) => fetch("/api/echo?n=" + i)));
    const good = responses.filter((response) => response.ok).length;
    return good + " of 100 answered in " + Math.round(performance.now() - began) + " ms";
  },
};

function show(text) {
  $("result").textContent = text;
}

for (const button of document.querySelectorAll("button[data-action]")) {
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      show(await actions[button.dataset.action]());
    } catch (error) {
      show("Failed: " + error);
    } finally {
      button.disabled = false;
    }
  });
}

// -- facts about the process

fetch("/api/status").then((response) => response.json()).then((status) => {
  $("version").textContent = status.asyncmg;
  const facts = {
    "Python": status.python.version + ", " + status.event_loop.name,
    "HTTP codec": status.codecs.http.name + " on " + status.codecs.http.library,
    "Backend": status.backend.name,
    "C core": status.core.available ? "loaded, ABI " + status.core.abi : "not in use",
  };
  for (const [name, value] of Object.entries(facts)) {
    const dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = name;
    dd.textContent = value;
    $("facts").append(dt, dd);
  }
});
