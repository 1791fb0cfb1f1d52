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
    const told = JSON.parse(event.data);
    if (told.events) showEvents(told);
    if (told.topics) noteTopics(told);
    if (told.mqtt) showBroker(told.mqtt);
    if (told.urls) showAddress(told.urls);
  };
  feed.onclose = () => {
    setFeedLink("reconnecting", "off");
    setTopicsLink("reconnecting", "off");
    setTimeout(watch, 1000);
  };
}

function showEvents({ events, left_out }) {
  for (const { conn, event, data } of events) addRow("conn " + conn, event, data);
  if (left_out) addRow("", "", "and " + left_out + " more");
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

// -- the broker's topics, over the same WebSocket. Whatever comes from there is shown as text, never as HTML.

const MAX_TOPICS = 500;   // as on the server: those that have been silent for the longest time go first
const MAX_SHOWN = 200;    // rows of the table
const RATE_WEIGHT = 0.4;  // of the last second, in the rate that is shown
let topics = new Map();   // by name, the one that was silent for the longest time first
let clockOffset = 0;      // seconds: the server's clock minus ours
let isDue = false;        // the table is to be drawn

const seconds = () => performance.now() / 1000;

function noteTopics({ topics: rows, now, is_first }) {
  clockOffset = now - seconds();
  if (is_first) topics = new Map();
  for (const row of rows) {
    const known = topics.get(row.topic);
    topics.delete(row.topic);
    topics.set(row.topic, { rate: 0, counted: row.count, tr: null, ...known, row });
  }
  for (const name of topics.keys()) {
    if (topics.size <= MAX_TOPICS) break;
    topics.delete(name);
  }
  setTopicsLink(topics.size + (topics.size === 1 ? " topic" : " topics"), "on");
  drawTopicsSoon();
}

function setTopicsLink(text, kind) {
  $("topics-count").textContent = text;
  $("topics-count").className = "badge " + kind;
}

function drawTopicsSoon() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => { isDue = false; drawTopics(); });
}

function drawTopics() {
  const matches = matcher($("filter").value.trim());
  const found = [...topics.values()].filter(({ row }) => matches(row.topic));
  found.sort((one, other) => one.row.topic < other.row.topic ? -1 : 1);
  const now = seconds() + clockOffset;
  $("topic-rows").replaceChildren(...found.slice(0, MAX_SHOWN).map((topic) => drawTopic(topic, now)));
  const hidden = found.length - MAX_SHOWN;
  $("topics-more").hidden = hidden <= 0;
  $("topics-more").textContent = "and " + hidden + " more: filter them";
}

function drawTopic(topic, now) {
  if (topic.tr === null) {
    topic.tr = document.createElement("tr");
    for (let cell = 0; cell < 7; cell++) topic.tr.append(document.createElement("td"));
    topic.tr.addEventListener("click", () => { $("publish-topic").value = topic.row.topic; });
  }
  const { row, rate, tr } = topic, age = Math.max(0, now - row.at);
  const cells = [
    row.topic, row.text === null ? row.size + " bytes" : row.text, row.qos, row.retain ? "yes" : "",
    row.count.toLocaleString("en"), rate < 0.05 ? "" : rate < 10 ? rate.toFixed(1) : Math.round(rate).toLocaleString("en"),
    age < 60 ? Math.floor(age) + " s" : duration(age),
  ];
  cells.forEach((text, at) => {
    if (tr.cells[at].textContent !== String(text)) tr.cells[at].textContent = text;
  });
  tr.cells[1].className = row.text === null ? "size" : "";
  tr.className = age < 1 ? "fresh" : "";
  return tr;
}

// A text with a wildcard is a topic filter, any other a part of a topic.
function matcher(text) {
  if (!/[+#]/.test(text)) return (topic) => topic.includes(text);
  const levels = text.split("/");
  return (topic) => {
    const names = topic.split("/");
    for (const [at, level] of levels.entries()) {
      if (level === "#") return true;
      if (at >= names.length || (level !== "+" && level !== names[at])) return false;
    }
    return levels.length === names.length;
  };
}

setInterval(() => {
  for (const topic of topics.values()) {
    topic.rate += RATE_WEIGHT * (topic.row.count - topic.counted - topic.rate);
    topic.counted = topic.row.count;
  }
  drawTopicsSoon();
}, 1000);

function showBroker({ statistics, clients }) {
  const figures = {
    "mqtt-clients": statistics.clients_connected, "mqtt-subscriptions": statistics.subscriptions,
    "mqtt-received": statistics.messages_received, "mqtt-sent": statistics.messages_sent,
    "mqtt-dropped": statistics.messages_dropped, "mqtt-retained": statistics.retained_messages,
  };
  for (const [id, figure] of Object.entries(figures)) $(id).value = figure.toLocaleString("en");
  const lines = clients.map(({ client_id, username, address, version }) =>
    [client_id, "MQTT " + version + " from " + (address || "here") + (username === null ? "" : " as " + username)]);
  if (statistics.clients_connected > clients.length) lines.push(["…", "and more"]);
  if (!lines.length) lines.push(["", "none yet"]);
  $("mqtt-who").replaceChildren(...lines.map(([name, about]) => {
    const item = document.createElement("li"), code = document.createElement("code");
    code.textContent = name;
    item.append(code, Object.assign(document.createElement("span"), { textContent: about }));
    return item;
  }));
}

function showAddress(urls) {
  $("mqtt-urls").textContent = urls.join(" and ");
  const { host, port } = /^mqtt:\/\/(?<host>.*):(?<port>\d+)$/.exec(urls[0]).groups;
  $("mqtt-try").textContent =
    "mosquitto_pub -h " + host.replace(/[[\]]/g, "") + " -p " + port + " -t room/temperature -m 21.5";
}

$("filter").addEventListener("input", drawTopicsSoon);

$("publish").addEventListener("submit", async (event) => {
  event.preventDefault();
  const query = new URLSearchParams({
    topic: $("publish-topic").value, qos: $("publish-qos").value, retain: $("publish-retain").checked ? "1" : "0",
  });
  try {
    const response = await fetch("/api/publish?" + query, { method: "POST", body: $("publish-payload").value });
    const told = await response.json();
    // One receiver is this demo itself.
    $("published").value = response.ok ? "published, " + (told.receivers - 1) + " receivers" : told.error;
  } catch (error) {
    $("published").value = "Failed: " + error;
  }
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
    "MQTT codec": status.codecs.mqtt.name,
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
