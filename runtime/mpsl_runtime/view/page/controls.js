// Buttons, keys and settings: what is asked of the program, and how its answer is shown.

const $ = (id) => document.getElementById(id);
const SPEEDS = [1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8, 16, 32, 64];
const WIND_US = 1_000_000;

/** 0 … 100 of the slider as 1 ms … 10 s, and back. */
const fadeOf = (place) => Math.round(10 ** (place / 25));
const placeOf = (fade) => Math.round(25 * Math.log10(fade));

export class Controls {
  /** send: says words to the program; freeze: stops or goes on drawing a live source. */
  constructor(send, freeze) {
    this.send = send;
    this.freeze = freeze;
    this.about = null;
    this.frame = null;
    this.speed = 1;
    this.asked = -Infinity;
    this.buttons();
    this.keys();
    this.seeking();
    this.settings();
  }

  get isLive() {
    return this.about?.live ?? false;
  }

  buttons() {
    $("play").onclick = () => this.toggle();
    $("step").onclick = () => this.send({ do: "step" });
    $("back").onclick = () => this.send({ do: "back" });
    $("previous").onclick = () => this.send({ do: "track", to: Math.max(0, (this.frame?.track ?? 0) - 1) });
    $("next").onclick = () => this.send({ do: "track", to: (this.frame?.track ?? 0) + 1 });
    $("slower").onclick = () => this.faster(-1);
    $("faster").onclick = () => this.faster(1);
    $("theme").onclick = () => {
      const root = document.documentElement;
      root.dataset.theme = root.dataset.theme === "light" ? "dark" : "light";
      localStorage.setItem("theme", root.dataset.theme);
      root.dispatchEvent(new Event("theme"));
    };
  }

  keys() {
    addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
      if (event.key === " " && event.target.matches("button")) event.preventDefault();
      const actions = {
        " ": () => this.toggle(),
        ArrowLeft: () => this.wind(-1),
        ArrowRight: () => this.wind(1),
        "+": () => this.faster(1),
        "=": () => this.faster(1),
        "-": () => this.faster(-1),
        "−": () => this.faster(-1),
      };
      const action = actions[event.key];
      if (!action) return;
      event.preventDefault();
      action();
    });
    // A button that has the focus would take the space for itself when the key is let go.
    addEventListener("keyup", (event) => {
      if (event.key === " " && event.target.matches("button")) event.preventDefault();
    });
  }

  toggle() {
    if (this.isLive) this.freeze();
    else this.send({ do: ["paused", "over"].includes(this.frame?.state) ? "play" : "pause" });
  }

  wind(direction) {
    if (this.isLive || !this.frame) return;
    if (this.frame.state === "paused") this.send({ do: direction > 0 ? "step" : "back" });
    else {
      const far = Math.min(WIND_US, (this.about.length_us || WIND_US * 10) / 10);
      this.send({ do: "seek", to: Math.max(0, Math.round(this.frame.position_us + direction * far)) });
    }
  }

  faster(direction) {
    if (this.isLive || !this.frame) return;
    const speeds = direction > 0 ? SPEEDS : [...SPEEDS].reverse();
    // From what was asked for last: its frame may still be on the way.
    const found = speeds.find((speed) => direction * (speed - this.speed) > 1e-9);
    if (!found) return;
    this.speed = found;
    this.asked = performance.now();
    this.send({ do: "speed", to: found });
  }

  seeking() {
    const bar = $("seek");
    const go = (event) => {
      const box = bar.getBoundingClientRect();
      const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      if (this.about?.length_us) this.send({ do: "seek", to: Math.round(share * this.about.length_us) });
    };
    bar.onpointerdown = (event) => {
      bar.setPointerCapture(event.pointerId);
      go(event);
    };
    bar.onpointermove = (event) => bar.hasPointerCapture(event.pointerId) && go(event);
  }

  settings() {
    const set = (words) => this.send({ set: words });
    const number = (id, times = 1) => Number($(id).value) * times;
    $("policy").onchange = () => set({ policy: $("policy").value });
    $("every").onchange = () => set({ every: Math.round(number("every")) });
    $("early").onchange = $("early_margin").onchange = () =>
      set({ early_margin: $("early").checked ? number("early_margin") : null });
    for (const name of ["hot_pixels", "merge", "loops"]) $(name).onchange = () => set({ [name]: $(name).checked });
    for (const name of ["background", "refractory"])
      $(name).onchange = $(`${name}_ms`).onchange = () =>
        set({ [`${name}_us`]: $(name).checked ? Math.round(number(`${name}_ms`, 1000)) : null });
    $("fade").oninput = () => set({ fade_ms: fadeOf(number("fade")) });
    $("settings").onsubmit = (event) => event.preventDefault();
  }

  /** What the program says of itself. */
  describe(about) {
    this.about = about;
    const has = about.settings;
    if (!$("policy").options.length) $("policy").append(...about.policies.map((name) => new Option(name)));
    $("policy").value = has.policy;
    $("every").value = has.every;
    $("every-label").hidden = has.policy !== "sliding";
    $("early").checked = has.early_margin !== null;
    if (has.early_margin !== null) $("early_margin").value = has.early_margin;
    for (const name of ["hot_pixels", "merge", "loops"]) $(name).checked = has[name];
    for (const name of ["background", "refractory"]) {
      $(name).checked = has[`${name}_us`] !== null;
      if (has[`${name}_us`] !== null) $(`${name}_ms`).value = has[`${name}_us`] / 1000;
    }
    if (document.activeElement !== $("fade")) $("fade").value = placeOf(has.fade_ms);
    $("fade_ms").textContent = has.fade_ms < 1000 ? `${has.fade_ms} ms` : `${(has.fade_ms / 1000).toFixed(1)} s`;
    for (const id of ["previous", "back", "step", "next", "pace"]) $(id).hidden = about.live;
  }

  /** The place in a file. */
  show(frame, isFrozen) {
    this.frame = frame;
    const stands = this.isLive ? isFrozen : ["paused", "over"].includes(frame.state);
    $("play").classList.toggle("stands", stands);
    $("play").setAttribute("aria-label", stands ? "play" : "pause");
    if (this.isLive) {
      $("play").lastElementChild.textContent = stands ? "go on" : "freeze";
      $("clock").textContent = "the last 30 s";
      return;
    }
    const length = this.about.length_us;
    const [at, all] = [frame.position_us, length].map((us) => ((us || 0) / 1e6).toFixed(length > 1e8 ? 0 : length > 1e7 ? 1 : 3));
    $("clock").textContent = length ? `${at} / ${all} s` : `${at} s`;
    const speed = frame.speed;
    if (performance.now() - this.asked > 1000) this.speed = speed;
    $("speed").textContent = speed >= 1 || !Number.isInteger(1 / speed) ? `${+speed.toFixed(2)}×` : `1/${1 / speed}×`;
    $("previous").disabled = frame.track === 0;
    $("seek").setAttribute("aria-valuemax", Math.round((length || 0) / 1000));
    $("seek").setAttribute("aria-valuenow", Math.round(frame.position_us / 1000));
    $("seek").setAttribute("aria-valuetext", `${at} s`);
  }
}
