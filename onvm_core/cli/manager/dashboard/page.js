"use strict";
// Shows each view that the server sends. Texts are set as texts, never as HTML.

const SVG = "http://www.w3.org/2000/svg";
const BOX = 150, GAP = 90, ROW = 20, TOP = 26;
let before = null;

const byId = (id) => document.getElementById(id);

function element(kind, text, cls) {
  const made = document.createElement(kind);
  made.textContent = text;
  if (cls) made.className = cls;
  return made;
}

function drawing(kind, attributes, text) {
  const made = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function number(value, digits = 0) {
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

function rate(pps) {
  if (pps >= 1e6) return number(pps / 1e6, 2) + " Mpps";
  if (pps >= 1e3) return number(pps / 1e3, 1) + " kpps";
  return number(pps) + " pps";
}

// columns: [heading, is a number]; rows: cells as text, or [text, class]
function table(id, columns, rows) {
  const made = byId(id);
  made.replaceChildren();
  if (!rows.length) {
    const row = made.insertRow();
    row.append(element("td", "none", "none"));
    return;
  }
  const head = made.insertRow();
  for (const [heading, isNumber] of columns) head.append(element("th", heading, isNumber ? "number" : ""));
  for (const cells of rows) {
    const row = made.insertRow();
    cells.forEach((cell, index) => {
      const [text, cls] = Array.isArray(cell) ? cell : [cell, ""];
      row.append(element("td", text, columns[index][1] ? "number" : cls));
    });
  }
}

// The difference of a counter to the view before, per second; 0 if it began again.
function perSecond(now, was) {
  const seconds = before ? now.status.uptime_s - before.status.uptime_s : 0;
  return (count, old) => (was === undefined || seconds <= 0 || count < old ? 0 : (count - old) / seconds);
}

function instanceRates(view) {
  const old = new Map((before ? before.status.report.nfs : []).map((nf) => [nf.instance + nf.pid, nf]));
  const rates = new Map();
  for (const nf of view.status.report.nfs) {
    const was = old.get(nf.instance + nf.pid);
    const speed = perSecond(view, was);
    rates.set(nf.instance, {
      nf,
      pps: speed(nf.rx, was ? was.rx : 0),
      counters: Object.entries(nf.counters).map(([name, count]) =>
        [name, count, speed(count, was ? was.counters[name] || 0 : 0)]),
    });
  }
  return rates;
}

function portRates(view) {
  const old = new Map((before ? before.status.report.ports : []).map((port) => [port.name, port]));
  return new Map(view.status.report.ports.map((port) => {
    const was = old.get(port.name);
    const speed = perSecond(view, was);
    return [port.name, {
      port,
      rx: speed(port.rx, was ? was.rx : 0),
      tx: speed(port.tx, was ? was.tx : 0),
      bits: 8 * speed(port.rx_bytes + port.tx_bytes, was ? was.rx_bytes + was.tx_bytes : 0),
    }];
  }));
}

function chainGraph(chain, instances, ports) {
  const columns = chain.services.map((service) =>
    [...instances.values()].filter((one) => one.nf.service === service && !["crashed", "stopped"].includes(one.nf.state)));
  const rows = Math.max(1, ...columns.map((list) => list.length));
  const height = TOP + rows * ROW + 22;
  const width = (chain.services.length + 2) * (BOX + GAP) - GAP + 4;
  const svg = drawing("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img" });
  svg.append(drawing("title", {}, "chain " + chain.name));
  const ends = [chain.near, chain.far];
  const middle = height / 2 + 4;
  const port = (name, x) => {
    const known = ports.get(name);
    svg.append(drawing("rect", { class: "port", x, y: middle - 24, width: BOX, height: 40, rx: 20 }));
    svg.append(drawing("text", { x: x + BOX / 2, y: middle - 6, "text-anchor": "middle" }, name));
    const speeds = known ? `${rate(known.rx)} in, ${rate(known.tx)} out` : "";
    svg.append(drawing("text", { class: "small", x: x + BOX / 2, y: middle + 9, "text-anchor": "middle" }, speeds));
  };
  port(ends[0], 2);
  chain.services.forEach((service, index) => {
    const x = (index + 1) * (BOX + GAP) + 2;
    svg.append(drawing("rect", { class: "box", x, y: 4, width: BOX, height: height - 8, rx: 6 }));
    svg.append(drawing("text", { x: x + 8, y: 20 }, service));
    columns[index].forEach(({ nf, pps }, row) => {
      const y = TOP + row * ROW;
      const used = nf.load ? nf.load.utilisation : 0;
      const cls = used > 0.95 ? "load bad" : used > 0.7 ? "load warm" : "load";
      svg.append(drawing("rect", { class: cls, x: x + 8, y: y + 15, width: Math.max(2, (BOX - 16) * Math.min(used, 1)), height: 3 }));
      svg.append(drawing("text", { class: "small", x: x + 8, y: y + 12 }, nf.instance));
      svg.append(drawing("text", { class: "small", x: x + BOX - 8, y: y + 12, "text-anchor": "end" }, rate(pps)));
    });
  });
  port(ends[1], (chain.services.length + 1) * (BOX + GAP) + 2);
  for (let index = 0; index <= chain.services.length; index++) {
    const x = index * (BOX + GAP) + BOX + 2;
    svg.append(drawing("path", { class: "way", d: `M${x} ${middle - 4}h${GAP - 6}m-6 -4l6 4l-6 4` }));
    if (chain.bidirectional) svg.append(drawing("path", { class: "way", d: `M${x + GAP} ${middle + 6}h${6 - GAP}m6 -4l-6 4l6 4` }));
  }
  return svg;
}

function show(view) {
  const state = byId("state");
  document.title = byId("title").textContent = `onvm ${view.manager}`;
  if (view.error) {
    state.textContent = view.error;
    state.className = "bad";
    before = null;
    return;
  }
  const report = view.status.report;
  const instances = instanceRates(view), ports = portRates(view);
  state.className = "";
  state.textContent = `${view.status.version}, ${view.status.state}, up ${number(view.status.uptime_s)} s; ` +
    `${number(report.flows)} flows; buffers ${number(report.buffers.free)} of ${number(report.buffers.total)} free`;
  byId("chains").replaceChildren(...view.status.chains.flatMap((chain) => [
    element("div", `${chain.name}: ${chain.state}`), chainGraph(chain, instances, ports)]));
  const launched = new Map(view.status.launched.flatMap((host) => host.instances.map((name) => [name, host])));
  table("instances", [["instance"], ["state"], ["rate", true], ["util %", true], ["CPU %", true], ["restarts", true]],
    [...instances.values()].filter(({ nf }) => nf.state !== "stopped").map(({ nf, pps }) => {
      const host = launched.get(nf.instance);
      const shown = host && ["waiting", "crash-loop"].includes(host.state) ? host.state : nf.state;
      return [nf.instance, [shown, shown], rate(pps), nf.load ? number(nf.load.utilisation * 100) : "-",
        number(nf.cpu * 100), host ? number(host.restarts) : "-"];
    }));
  table("ports", [["port"], ["uri"], ["state"], ["in", true], ["out", true], ["Mbit/s", true]],
    [...ports.values()].map(({ port, rx, tx, bits }) =>
      [port.name, [port.uri, "text"], [port.state, port.state], rate(rx), rate(tx), number(bits / 1e6, 1)]));
  const oldDrops = before ? before.status.report.drops : {};
  table("drops", [["reason"], ["packets", true], ["rate", true]],
    Object.entries(report.drops).map(([reason, count]) =>
      [reason, number(count), rate(perSecond(view, oldDrops)(count, oldDrops[reason] || 0))]));
  const cores = new Map();
  for (const host of view.status.launched)
    for (const cpu of host.cpus) cores.set(cpu, [...(cores.get(cpu) || []), host.instances.join("+")]);
  table("cores", [["CPU"], ["NF hosts"]],
    [...cores].sort((a, b) => a[0] - b[0]).map(([cpu, names]) => [String(cpu), [names.join(", "), "text"]]));
  table("counters", [["instance"], ["counter"], ["count", true], ["per second", true]],
    [...instances.values()].flatMap(({ nf, counters }) => counters.filter(([, count]) => count)
      .map(([name, count, speed]) => [nf.instance, name, number(count), number(speed)])));
  const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString();
  table("decisions", [["time"], ["service"], ["from"], ["reason"], ["done"]],
    view.decisions.slice().reverse().map((one) => [clock(one.time), one.service, `${one.before} → ${one.wanted}`,
      [one.reason, "text"], [one.error || one.actions.join(", "), "text"]]));
  table("hosts", [["host"], ["address"], ["state"], ["to it", true], ["from it", true]],
    view.status.peers.map((peer) => [peer.name, peer.address, [peer.is_up ? "up" : "down", peer.is_up ? "up" : "down"],
      number(peer.tx), number(peer.rx)]));
  table("events", [["time"], ["what"], ["state"], ["reason"]],
    view.events.slice().reverse().map(({ time, event }) => [clock(time),
      event.type === "nf" ? event.instances.join("+") : event.type === "chain" ? `chain ${event.name}` : "manager",
      [event.state || event.action, event.state || ""], [event.reason || "", "text"]]));
  before = view;
}

function lost() {
  byId("state").textContent = "the dashboard's server does not answer";
  byId("state").className = "bad";
}

// A still picture, for reports: two views, because rates need two.
async function still() {
  for (let count = 0; count < 2; count++) {
    show(await (await fetch(count ? "view?later" : "view")).json());
  }
}

if (new URLSearchParams(location.search).has("still")) {
  still().catch(lost);
} else {
  const source = new EventSource("events");
  source.onmessage = (message) => show(JSON.parse(message.data));
  source.onerror = lost;
}
