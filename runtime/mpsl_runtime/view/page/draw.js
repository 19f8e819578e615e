// Canvases: the camera's events, a network's input, scores over time, the timeline.

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function rgb(name) {
  const value = css(name);
  return [1, 3, 5].map((at) => parseInt(value.slice(at, at + 2), 16));
}

/** 256 colours, one for each byte of a picture: brighter in its high half, darker in its low one. */
export function palette() {
  const stage = rgb("--stage"), on = rgb("--on"), off = rgb("--off");
  const colours = new Uint32Array(256);
  for (let byte = 0; byte < 256; byte++) {
    // A single event is to be seen: its level begins at a third.
    const [a, b] = [byte >> 4, byte & 15].map((level) => (level ? 0.3 + (0.7 * level) / 15 : 0));
    // Light adds up on a dark stage, ink on a light one.
    const mixed = [0, 1, 2].map((i) => {
      const sum = stage[i] + a * (on[i] - stage[i]) + b * (off[i] - stage[i]);
      return Math.round(Math.min(255, Math.max(0, sum)));
    });
    colours[byte] = (255 << 24) | (mixed[2] << 16) | (mixed[1] << 8) | mixed[0];
  }
  return colours;
}

/** Bytes as a picture, pixel by pixel. */
export function paint(canvas, columns, rows, bytes, colours) {
  if (canvas.width !== columns || canvas.height !== rows) {
    canvas.width = columns;
    canvas.height = rows;
  }
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < bytes.length; i++) pixels[i] = colours[bytes[i]];
  context.putImageData(image, 0, 0);
}

/** A canvas as sharp as the screen: its context in CSS pixels, and its size. */
function sharp(canvas) {
  const width = canvas.clientWidth, height = canvas.clientHeight, ratio = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return [context, width, height];
}

/** The camera's picture in the middle of its stage, as large as it goes, and what networks see. */
export function place(stage, events, marks, camera, windows) {
  const width = stage.clientWidth, height = stage.clientHeight - 30;
  const scale = Math.min(width / camera[0], height / camera[1]);
  const [w, h] = [camera[0] * scale, camera[1] * scale];
  for (const canvas of [events, marks]) {
    canvas.style.width = `${w}px`;
    canvas.style.height = `${h}px`;
    canvas.style.left = `${(width - w) / 2}px`;
    canvas.style.top = `${(height - h) / 2}px`;
  }
  const [context] = sharp(marks);
  context.strokeStyle = css("--text");
  context.setLineDash([6, 5]);
  for (const window_ of windows) {
    if (!window_) continue;
    const [left, top, across, down] = window_.map((side) => side * scale);
    context.strokeRect(left + 1, top + 1, across - 2, down - 2);
  }
}

/** Scores over time with the answers below them. */
export class Chart {
  constructor(canvas, classes) {
    this.canvas = canvas;
    this.classes = classes;
    this.clear();
  }

  clear() {
    this.steps = [];
    this.windows = [];
  }

  add(steps, windows) {
    this.steps.push(...steps);
    this.windows.push(...windows);
    if (this.steps.length > 2000) this.steps.splice(0, this.steps.length - 2000);
    if (this.windows.length > 200) this.windows.splice(0, this.windows.length - 200);
  }

  draw(begin, end, stepLength, answer, zero) {
    const [context, width, height] = sharp(this.canvas);
    const longest = Math.max(...this.classes.map((name) => name.length));
    const left = 34, right = Math.min(124, 26 + 8 * longest), band = 24, foot = 18, top = 6;
    const bottom = height - band - foot - 8, across = width - left - right;
    const x = (t) => left + ((t - zero - begin) / (end - begin)) * across; // of the source's own time
    const shown = this.steps.filter((row) => row[1] - zero + stepLength >= begin && row[1] - zero <= end);
    let low = 0, high = 1;
    for (const row of shown) for (const s of row[3]) { low = Math.min(low, s); high = Math.max(high, s); }
    const y = (s) => bottom - ((s - low) / (high - low)) * (bottom - top);
    this.axes(context, [left, width - right, top, bottom], [low, high], y);
    context.save();
    context.beginPath();
    context.rect(left, 0, across + 1, height);
    context.clip();
    const last = shown.length ? shown[shown.length - 1][3] : [];
    const order = last.map((score, k) => [score, k]).sort((a, b) => b[0] - a[0]).map((pair) => pair[1]);
    const main = answer ?? -1;
    for (const rows of this.parts(shown, stepLength)) {
      const answered = this.answerOf(rows[rows.length - 1], stepLength);
      for (let k = 0; k < this.classes.length; k++) if (k !== answered) this.line(context, rows, k, x, y, stepLength, false);
      if (answered >= 0) this.line(context, rows, answered, x, y, stepLength, true);
    }
    this.answers(context, shown, stepLength, x, height - band - foot, band);
    context.restore();
    this.names(context, order, main, last, y, [width - right + 8, right - 8], [top, bottom]);
    this.times(context, begin, end, (t) => x(t + zero), height - 4);
  }

  axes(context, [left, right, top, bottom], [low, high], y) {
    context.strokeStyle = css("--edge");
    context.fillStyle = css("--dim");
    context.font = "11px system-ui, sans-serif";
    context.textAlign = "right";
    context.textBaseline = "middle";
    context.lineWidth = 1;
    for (const value of [low, (low + high) / 2, high]) {
      const at = Math.round(y(value)) + 0.5;
      context.beginPath();
      context.moveTo(left, at);
      context.lineTo(right, at);
      context.stroke();
      context.fillText(short(value), left - 6, Math.min(Math.max(at, top + 5), bottom));
    }
  }

  /** The steps of each window, which begins at nothing: no line leads to it from the one before. */
  parts(rows, stepLength) {
    const found = [];
    let before = -Infinity;
    for (const row of rows) {
      if (row[4] || row[1] - before > 1.5 * stepLength) found.push([]);
      found[found.length - 1].push(row);
      before = row[1];
    }
    return found;
  }

  /** The class that a window was answered by, or that leads in it; −1 is none. */
  answerOf(row, stepLength) {
    const end = row[1] + stepLength;
    const found = this.windows.find(([, begin, stop]) => begin < end && end <= stop);
    return found ? found[3] : row[2];
  }

  line(context, rows, k, x, y, stepLength, isMain) {
    context.strokeStyle = css(isMain ? "--accent" : "--dim");
    context.globalAlpha = isMain ? 1 : 0.55;
    context.lineWidth = isMain ? 2.6 : 1;
    context.lineJoin = "round";
    context.beginPath();
    context.moveTo(x(rows[0][1]), rows[0][4] ? y(0) : y(rows[0][3][k]));
    for (const row of rows) context.lineTo(x(row[1] + stepLength), y(row[3][k]));
    context.stroke();
    context.globalAlpha = 1;
  }

  /** Answered windows are full; what leads since the last of them is an outline. */
  answers(context, rows, stepLength, x, top, height) {
    const answered = this.windows.map((row) => [row[1], row[2], row[3], true]);
    const until = this.windows.length ? this.windows[this.windows.length - 1][2] : -Infinity;
    const leading = [];
    for (const [, t, label] of rows) {
      if (t < until) continue;
      const run = leading[leading.length - 1];
      if (run && run[2] === label && t - run[1] < stepLength) run[1] = t + stepLength;
      else leading.push([t, t + stepLength, label, false]);
    }
    context.font = "600 13px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineWidth = 1.5;
    for (const [begin, end, label, isAnswer] of [...answered, ...leading]) {
      const left = x(begin) + 1, width = Math.max(2, x(end) - left - 1);
      const colour = label < 0 ? css("--edge") : css("--accent");
      context.fillStyle = context.strokeStyle = colour;
      context.beginPath();
      context.roundRect(left, top + 1, width, height - 2, Math.min(5, width / 2));
      if (isAnswer) context.fill();
      else context.stroke();
      context.fillStyle = label < 0 ? css("--dim") : isAnswer ? css("--page") : colour;
      const fitted = fit(context, label < 0 ? "none" : this.classes[label], width - 6);
      if (fitted) context.fillText(fitted, left + width / 2, top + height / 2 + 0.5);
    }
  }

  /** Of the class that leads, and of the next two that have any score. */
  names(context, order, main, scores, y, [left, width], [top, bottom]) {
    context.textAlign = "left";
    context.textBaseline = "middle";
    const others = order.filter((k) => k !== main && scores[k] > Math.min(0, ...scores));
    const taken = [];
    for (const k of [main, ...others].filter((k) => k >= 0 && scores[k] !== undefined).slice(0, 3)) {
      const at = Math.min(Math.max(y(scores[k]), top + 6), bottom);
      if (taken.some((other) => Math.abs(other - at) < 14)) continue;
      taken.push(at);
      context.font = k === main ? "600 13px system-ui, sans-serif" : "12px system-ui, sans-serif";
      context.fillStyle = css(k === main ? "--accent" : "--dim");
      context.fillText(fit(context, this.classes[k], width) ?? "", left, at);
    }
  }

  times(context, begin, end, x, bottom) {
    context.fillStyle = css("--dim");
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "alphabetic";
    const step = tick((end - begin) / 4);
    for (let t = Math.ceil(begin / step) * step; t <= end; t += step) {
      context.textAlign = "center";
      context.fillText(seconds(t, step), x(t), bottom);
    }
  }
}

/** 1, 2 or 5 times a power of ten. */
function tick(about) {
  const power = 10 ** Math.floor(Math.log10(about));
  return [1, 2, 5, 10].map((times) => times * power).find((step) => step >= about);
}

function seconds(t, step) {
  return `${(t / 1e6).toFixed(Math.max(0, Math.ceil(-Math.log10(step / 1e6) - 1e-9)))} s`;
}

function short(value) {
  return Number.isInteger(value) ? String(value) : value.toFixed(1);
}

function fit(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  for (let n = text.length - 1; n > 1; n--) {
    const cut = `${text.slice(0, n)}…`;
    if (context.measureText(cut).width <= width) return cut;
  }
  return null;
}

/** How busy a recording is over its length, and where it is played. */
export function timeline(canvas, activity, share) {
  const [context, width, height] = sharp(canvas);
  const most = Math.max(1, ...activity);
  context.fillStyle = css("--edge");
  context.fillRect(0, height - 2, width, 2);
  activity.forEach((count, i) => {
    const left = (i / activity.length) * width, right = ((i + 1) / activity.length) * width;
    const tall = count ? Math.max(2, Math.sqrt(count / most) * (height - 4)) : 0;
    context.fillStyle = left < share * width ? css("--accent") : css("--dim");
    context.globalAlpha = left < share * width ? 0.85 : 0.4;
    context.fillRect(left, height - 2 - tall, Math.max(1, right - left - 0.5), tall);
  });
  context.globalAlpha = 1;
  if (share >= 1) return;
  context.fillStyle = css("--text");
  context.fillRect(Math.min(width - 2, Math.max(0, share * width - 1)), 0, 2, height);
}
