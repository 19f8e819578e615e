// Connects, and shows each frame that comes.

import { Chart, paint, palette, place, timeline } from "./draw.js";
import { Controls } from "./controls.js";

const $ = (id) => document.getElementById(id);
const NO_TOKEN = 4401, TOO_MANY = 1013;
const SILENT_S = 1;
const root = document.documentElement;

const light = matchMedia("(prefers-color-scheme: light)");
root.dataset.theme = localStorage.getItem("theme") ?? (light.matches ? "light" : "dark");
let colours = palette();
root.addEventListener("theme", () => {
  colours = palette();
  draw();
});

// The token comes behind the #, which no browser sends and no server logs; then it is kept here.
const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  sessionStorage.setItem("token", given);
  history.replaceState(null, "", location.pathname);
}

let socket = null, wait_ms = 250, about = null, frame = null, shown = null, frozen = false, asked = false;
let cards = [], arrivals = [];

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/pictures`);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => socket.send(JSON.stringify({ token: sessionStorage.getItem("token") ?? "" }));
  let turn = Promise.resolve();
  const own = socket;
  socket.onmessage = (event) => {
    turn = turn.then(() => take(event.data, own)).catch((error) => tell(`This page has a fault: ${error}`));
  };
  socket.onclose = (event) => {
    if (event.code === NO_TOKEN) return tell("The token is missing or wrong: open the address that mpsl view printed.", "lost");
    tell(event.code === TOO_MANY ? "Too many pages watch already. Trying again …" : "mpsl view has gone. Trying again …", "lost");
    setTimeout(connect, wait_ms);
    wait_ms = Math.min(5000, wait_ms * 2);
  };
}

function send(words) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(words));
}

function tell(text, state) {
  $("banner").textContent = text;
  $("banner").hidden = !text;
  if (state) setState(state, "no connection");
}

function setState(state, text) {
  if (document.body.dataset.state !== state) document.body.dataset.state = state;
  if ($("state").textContent !== text) $("state").textContent = text;
}

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function take(data, from) {
  if (typeof data === "string") {
    const words = JSON.parse(data);
    if (words.error) tell(words.error);
    if (words.about) describe(words.about);
    return;
  }
  const length = new DataView(data).getUint32(0, true);
  const facts = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  let at = 4 + length;
  const blocks = facts.blocks.map((size) => new Uint8Array(data, (at += size) - size, size));
  facts.pictures = await Promise.all(blocks.map(inflate));
  if (from !== socket) return;
  if (socket.readyState === WebSocket.OPEN) socket.send('{"got":1}');
  wait_ms = 250;
  if (document.body.dataset.state === "lost") tell("");
  keep(facts);
}

/** Takes in what must not be missed, and draws when the screen is ready. */
function keep(facts) {
  frame = facts;
  const now = performance.now();
  arrivals.push(now);
  while (arrivals[0] < now - 2000) arrivals.shift();
  rates.add(facts.rate);
  facts.models.forEach((model, i) => {
    const card = cards[i];
    if (!card) return;
    if (card.epoch !== model.epoch) card.chart.clear();
    card.epoch = model.epoch;
    card.chart.add(model.rows, model.windows);
  });
  if (!frozen) shown = frame;
  if (!asked) {
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      draw();
    });
  }
}

function describe(words) {
  const names = JSON.stringify(words.models);
  const isOther = !about || names !== JSON.stringify(about.models);
  about = words;
  document.body.dataset.kind = about.live ? "live" : "file";
  $("source").textContent = about.source;
  controls.describe(about);
  if (isOther) buildCards();
}

function buildCards() {
  $("models").replaceChildren();
  cards = about.models.map((model) => {
    const card = $("card").content.firstElementChild.cloneNode(true);
    const title = card.querySelector("h2");
    title.textContent = model.name;
    const small = document.createElement("small");
    small.textContent = `${model.steps} steps of ${model.step_us / 1000} ms`;
    title.append(small);
    $("models").append(card);
    $("models").dataset.count = about.models.length;
    $("models").toggleAttribute("data-many", about.models.length > 2);
    const find = (name) => card.querySelector(`.${name}`);
    return { model, find, epoch: null, chart: new Chart(find("scores"), model.classes) };
  });
}

/** Events a second of a live source, for the last 30 s. */
const rates = {
  values: new Array(120).fill(0),
  part: 0,
  add(rate) {
    const part = Math.floor(performance.now() / 250);
    for (let n = Math.min(part - this.part, this.values.length); n > 0; n--) {
      this.values.shift();
      this.values.push(0);
    }
    this.part = part;
    this.values[this.values.length - 1] = rate;
  },
  shown() {
    return this.values;
  },
};

const controls = new Controls(send, () => {
  frozen = !frozen;
  if (!frozen) shown = frame;
  draw();
});

function draw() {
  if (!shown || !about) return;
  const [columns, rows, scale] = shown.picture;
  paint($("events"), columns, rows, shown.pictures[0], colours);
  place($("stage"), $("events"), $("marks"), [columns * scale, rows * scale], about.models.map((model) => model.window));
  $("camera").textContent = `${about.camera[0]}×${about.camera[1]} pixels`;
  showState();
  showNumbers();
  controls.show(shown, frozen);
  if (about.live) timeline($("timeline"), rates.shown(), 1);
  else timeline($("timeline"), about.activity ?? [], about.length_us ? Math.min(1, shown.position_us / about.length_us) : 0);
  cards.forEach((card, i) => showModel(card, shown.models[i], shown.pictures[i + 1]));
}

function showState() {
  const silent = shown.silent_s > SILENT_S && about.live;
  const words = { live: "live", silent: "no events", playing: "playing", paused: "paused", over: "at the end" };
  if (frozen) setState("frozen", "frozen; the networks go on");
  else setState(shown.state, words[shown.state] ?? shown.state);
  $("silence").hidden = !silent;
  if (silent) $("silence").textContent = `No events for ${shown.silent_s < 60 ? `${Math.floor(shown.silent_s)} s` : `${Math.floor(shown.silent_s / 60)} min`}`;
}

const whole = (n) => (n ?? 0).toLocaleString("en");
const total = (counts) => Object.values(counts).reduce((a, b) => a + b, 0);
const causes = (counts) => Object.entries(counts).map(([cause, n]) => `${whole(n)} ${cause}`).join("\n");

function showNumbers() {
  const lost = {}, out = {};
  let queue = 0;
  for (const model of shown.models) {
    queue += model.waiting;
    for (const [cause, n] of Object.entries(model.lost)) lost[cause] = Math.max(lost[cause] ?? 0, n);
    for (const [cause, n] of Object.entries(model.left_out)) out[cause] = Math.max(out[cause] ?? 0, n);
  }
  const write = (id, text, title = "") => Object.assign($(id), { textContent: text, title });
  write("rate", whole(shown.rate));
  write("lost", whole(total(lost)), causes(lost));
  write("queue", whole(queue));
  write("out", whole(total(out)), causes(out));
  write("pictures", Math.round(arrivals.length / 2), `${shown.dropped} pictures were dropped for this page`);
}

function showModel(card, model, given) {
  const { find, chart } = card;
  const silent = about.live && shown.silent_s > SILENT_S;
  const isNone = model.label === null || silent;
  const label = find("label");
  const name = model.t_us === null ? "–" : isNone ? "none" : model.name;
  if (label.firstChild.textContent !== name) label.firstChild.textContent = name;
  label.className = `label${isNone ? " none" : ""}${!model.final && !isNone ? " leading" : ""}${name.length > 4 && !isNone ? " long" : ""}`;
  label.lastChild.textContent = caption(model, card, silent);
  const [rows, columns] = model.input;
  paint(find("given"), columns, rows, given, colours);
  const steps = card.model.steps * card.model.step_us;
  const begin = shown.begin_us, now = model.t_us ?? begin;
  const span = about.length_us ? Math.min(Math.max(about.length_us, steps), 4 * steps) : 4 * steps;
  const from = Math.max(begin, now + card.model.step_us - span) - begin;
  chart.draw(from, from + span, card.model.step_us, isNone ? null : model.label, begin);
  showBars(card, model, isNone ? null : model.label);
  showLayers(card, model);
  find("p50").textContent = latency(model.latency_ms[0]);
  find("p99").textContent = latency(model.latency_ms[1]);
  find("steps").textContent = whole(model.steps);
  find("answers").textContent = whole(total(model.answers));
  find("answers").title = causes(model.answers);
  find("right").parentNode.hidden = !model.judged;
  if (model.judged) find("right").textContent = `${model.right} of ${model.judged}`;
}

function caption(model, card, silent) {
  if (silent) return model.name === "none" ? "nothing to answer" : `last answer: ${model.name}`;
  if (model.t_us === null) return "waiting for events";
  const target = shown.target === null || shown.target === undefined ? "" : `, it is ${about.models[0].classes[shown.target]}`;
  if (model.label === null) return `no answer${target}`;
  return `${model.final ? "answered" : "leads"}, ${Math.round(100 * model.confidence)} %${target}`;
}

const latency = (ms) => (ms < 1 ? `${Math.round(ms * 1000)} µs` : `${ms.toFixed(ms < 10 ? 1 : 0)} ms`);

const MOST_BARS = 12;

function showBars(card, model, best) {
  const box = card.find("bars");
  const classes = card.model.classes;
  if (about.models.length > 1 || classes.length > MOST_BARS) return;
  if (!box.children.length) box.append(...classes.flatMap((name) => [span(name), document.createElement("i"), span("")]));
  const least = Math.min(0, ...model.scores), most = Math.max(1e-9, ...model.scores.map((score) => score - least));
  model.scores.forEach((score, k) => {
    const [name, bar, value] = [0, 1, 2].map((i) => box.children[3 * k + i]);
    for (const part of [name, bar, value]) part.classList.toggle("best", k === best);
    bar.style.setProperty("--share", `${(100 * (score - least)) / most}%`);
    value.textContent = Number.isInteger(score) ? score : score.toFixed(2);
  });
}

function span(text) {
  const item = document.createElement("span");
  item.textContent = text;
  return item;
}

function showLayers(card, model) {
  if (!model.firing) return;
  const box = card.find("layers");
  if (box.children.length !== model.firing.length) {
    box.replaceChildren(
      ...card.model.layers.map(([name]) => {
        const item = document.createElement("div");
        item.append(name, document.createElement("b"), document.createElement("i"));
        return item;
      }),
    );
  }
  model.firing.forEach((share, i) => {
    const item = box.children[i];
    item.querySelector("b").textContent = `${(100 * share).toFixed(1)} %`;
    item.querySelector("i").style.setProperty("--share", `${Math.min(100, 100 * share)}%`);
  });
}

addEventListener("resize", () => draw());
connect();
