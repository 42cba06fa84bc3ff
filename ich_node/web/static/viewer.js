// The viewer: Hounsfield units from the node, windowed here. Slices are fetched ahead from where one looks.
"use strict";

const PRESETS = [
  ["Brain", 40, 80], ["Subdural", 80, 200], ["Stroke", 40, 40], ["Soft tissue", 40, 380], ["Bone", 600, 2800],
];
const AT_ONCE = 4;
const AHEAD = 96; // slices to either side that are fetched before one looks at them
const KEPT = 160; // further away they are forgotten: a thin series would fill the browser's memory
const QUIET_MS = 400; // without a movement, until a screen reader is told where one is

const nameOf = (one) => (one === "any" ? "any hemorrhage" : one.replaceAll("_", " "));

class Viewer {
  constructor(study, root) {
    this.study = study;
    this.root = root;
    this.$ = (id) => root.querySelector("#" + id);
    this.stage = this.$("stage");
    this.canvas = this.$("canvas");
    this.strip = this.$("strip");
    this.series = [];
    this.slices = [];
    this.at = 0;
    this.center = 40;
    this.width = 80;
    this.pixels = new Map(); // number of the slice: Int16Array
    this.coming = new Map();
    this.className = "any";
    this.drawn = 0;
    this.makePresets();
    this.follow();
  }

  /** Read which slices there are now. */
  async load() {
    try {
      const answer = await ich.ask(`/studies/${this.study}/slices`, { byItself: true, headers: { Accept: "application/json" } });
      if (!answer.ok) throw new Error(answer.status);
      this.show(await answer.json());
    } catch {
      if (!this.pixels.size) this.tell("The images cannot be read now.");
    }
  }

  /** Show what there is; where the same series is shown, stay at the same slice. */
  show(found) {
    if (!found.series.length) return this.tell("No image can be shown: none has been read yet, or they were deleted after their days.");
    if (JSON.stringify(found.series) === JSON.stringify(this.series)) { this.$("message").hidden = !this.slices[this.at]?.gone; return; }
    const shown = this.shown?.uid;
    this.series = found.series;
    this.classes = found.classes;
    this.fillMenus(shown);
    this.choose(this.series.find((one) => one.uid === shown) || this.series[0], shown);
  }

  fillMenus(shown) {
    const menu = this.$("series");
    menu.replaceChildren(...this.series.map((one, index) => {
      const number = one.number === null ? "–" : one.number;
      const text = `Series ${number}: ${one.slices.length} slices${one.thickness_mm ? `, ${one.thickness_mm} mm` : ""}${one.kernel ? `, ${one.kernel}` : ""}${one.is_basis ? " ★" : ""}`;
      return new Option(text, index, false, one.uid === shown);
    }));
    const classes = this.$("class");
    if (!classes.options.length) classes.replaceChildren(...this.classes.map((one) => new Option(nameOf(one), one)));
  }

  choose(series, before) {
    const stays = series.uid === before;
    const at = stays ? this.slices[this.at]?.key : null;
    if (!stays) this.pixels.clear();
    this.coming.clear(); // what is on its way was asked for by numbers of before, and is asked for again
    this.shown = series;
    const moved = new Map(this.slices.map((one, index) => [one.key, this.pixels.get(index)]));
    this.slices = series.slices.map((one) => ({ ...one, key: `${one.uid}/${one.frame ?? ""}` }));
    if (stays) this.pixels = new Map(this.slices.map((one, index) => [index, moved.get(one.key)]).filter(([, pixels]) => pixels));
    this.$("message").hidden = true;
    let next = at === null ? -1 : this.slices.findIndex((one) => one.key === at);
    if (next < 0) next = this.slices.findIndex((one) => one.is_key);
    if (next < 0) next = Math.floor(this.slices.length / 2);
    this.strip.setAttribute("aria-valuemax", this.slices.length);
    this.go(next);
  }

  tell(text) {
    this.$("message").textContent = text;
    this.$("message").hidden = false;
  }

  // ------------------------------------------------------------------------------- where one looks

  go(to) {
    this.at = Math.min(Math.max(to, 0), this.slices.length - 1);
    this.draw();
    this.fetchAround();
  }

  nextKey() {
    const keys = this.slices.map((one, index) => (one.is_key ? index : -1)).filter((index) => index >= 0);
    if (keys.length) this.go(keys.find((index) => index > this.at) ?? keys[0]);
  }

  fetchAround() {
    const order = [...this.slices.keys()].sort((one, two) => Math.abs(one - this.at) - Math.abs(two - this.at));
    for (const index of this.pixels.keys()) if (Math.abs(index - this.at) > KEPT) this.pixels.delete(index);
    for (const index of order) {
      if (this.coming.size >= AT_ONCE || Math.abs(index - this.at) > AHEAD) return;
      if (!this.pixels.has(index) && !this.coming.has(index) && !this.slices[index].gone) this.fetchSlice(index);
    }
  }

  async fetchSlice(index) {
    const series = this.shown;
    const slice = this.slices[index];
    this.coming.set(index, true);
    const frame = slice.frame === null ? "" : `?frame=${slice.frame}`;
    try {
      const answer = await ich.ask(`/studies/${this.study}/slices/${slice.uid}${frame}`, { byItself: true, headers: { Accept: "application/json" } });
      if (series !== this.shown) return;
      if (answer.ok) this.pixels.set(index, new Int16Array(await answer.arrayBuffer()));
      else if (answer.status === 404 || answer.status === 410) slice.gone = (await answer.json()).detail || "cannot be read";
      else throw new Error(answer.status);
    } catch { // the node is busy or away: it is asked again
      setTimeout(() => {
        if (series !== this.shown) return;
        this.coming.delete(index);
        this.fetchAround();
      }, AGAIN_MS);
      return;
    }
    if (series !== this.shown) return;
    this.coming.delete(index);
    if (index === this.at) this.draw();
    this.fetchAround();
  }

  // ------------------------------------------------------------------------------------ drawing

  draw() {
    if (this.waits) return;
    this.waits = true;
    requestAnimationFrame(() => { this.waits = false; this.drawNow(); });
  }

  drawNow() {
    const slice = this.slices[this.at];
    if (!slice) return;
    const pixels = this.pixels.get(this.at);
    this.sayWhere(slice);
    this.drawStrip();
    if (!pixels) {
      this.stage.classList.toggle("waiting", !slice.gone);
      if (slice.gone) { this.clear(); this.tell(`This slice cannot be shown: ${slice.gone}`); }
      return;
    }
    this.stage.classList.remove("waiting");
    this.$("message").hidden = true;
    this.drawSlice(slice, pixels);
    this.drawn += 1;
    this.firstDrawnAt ||= performance.timeOrigin + performance.now();
    this.stage.dataset.shown = slice.key;
  }

  clear() {
    this.canvas.getContext("2d").clearRect(0, 0, this.canvas.width, this.canvas.height);
  }

  drawSlice(slice, pixels) {
    const { rows, columns } = slice;
    if (this.canvas.width !== columns || this.canvas.height !== rows) { this.canvas.width = columns; this.canvas.height = rows; this.image = null; }
    const spacing = slice.spacing_mm || [1, 1];
    this.$("picture").style.setProperty("--ratio", (columns * spacing[1]) / (rows * spacing[0]));
    const context = this.canvas.getContext("2d", { alpha: false });
    this.image ||= new Uint32Array(new ArrayBuffer(4 * rows * columns));
    const grey = this.image;
    const table = this.table();
    for (let index = 0; index < pixels.length; index++) grey[index] = table[pixels[index] + 32768];
    context.putImageData(new ImageData(new Uint8ClampedArray(grey.buffer), columns, rows), 0, 0);
  }

  /** Grey of every value (PS3.3 C.11.2.1.2.1, linear), made anew where the window changes. */
  table() {
    const key = `${this.center}/${this.width}`;
    if (this.tableKey === key) return this.greys;
    const greys = this.greys || new Uint32Array(65536);
    const low = this.center - 0.5 - (this.width - 1) / 2;
    for (let value = 0; value < 65536; value++) {
      const grey = Math.min(255, Math.max(0, Math.round(((value - 32768 - low) / Math.max(this.width - 1, 1)) * 255)));
      greys[value] = (255 << 24) | (grey << 16) | (grey << 8) | grey;
    }
    this.tableKey = key;
    return (this.greys = greys);
  }

  sayWhere(slice) {
    const position = slice.position_mm === null ? "" : `  ${ich.sayNumber(slice.position_mm, 1)} mm`;
    const where = `${this.at + 1} / ${this.slices.length}${position}${slice.is_key ? "  key slice" : ""}`;
    this.$("where").textContent = where;
    this.speak(where);
    this.$("window").textContent = `C ${Math.round(this.center)}  W ${Math.round(this.width)}`;
    const said = slice.probabilities;
    this.$("said").textContent = said ? `${nameOf(this.className)} ${ich.sayNumber(100 * said[this.className], 1)} %` : "";
    this.strip.setAttribute("aria-valuenow", this.at + 1);
    this.strip.setAttribute("aria-valuetext", where);
    for (const button of this.$("presets").children) {
      button.setAttribute("aria-pressed", String(button.value === `${this.center}/${this.width}`));
    }
  }

  /** Tell a screen reader where one is, once one stays there. */
  speak(where) {
    clearTimeout(this.silence);
    const said = this.$("said").textContent;
    this.silence = setTimeout(() => { this.$("spoken").textContent = `Slice ${where} ${said}`; }, QUIET_MS);
  }

  drawStrip() {
    const box = this.strip.getBoundingClientRect();
    const scale = devicePixelRatio || 1;
    const [width, height] = [Math.round(box.width * scale), Math.round(box.height * scale)];
    if (this.strip.width !== width || this.strip.height !== height) { this.strip.width = width; this.strip.height = height; }
    const context = this.strip.getContext("2d");
    const colours = this.colours();
    context.fillStyle = colours.well;
    context.fillRect(0, 0, width, height);
    const step = width / this.slices.length;
    this.slices.forEach((one, index) => {
      const value = one.probabilities ? one.probabilities[this.className] : null;
      context.fillStyle = value === null ? colours.line : colours[this.saysOf(value)];
      const tall = value === null ? 2 * scale : Math.max(2 * scale, value * (height - 6 * scale));
      context.fillRect(index * step, height - tall, Math.max(step - scale, 1), tall);
      if (one.is_key) { context.fillStyle = colours.text; context.fillRect(index * step, 0, Math.max(step - scale, 1), 3 * scale); }
    });
    context.strokeStyle = colours.text;
    context.lineWidth = 2 * scale;
    context.strokeRect(this.at * step, scale, Math.max(step - scale, 2 * scale), height - 2 * scale);
  }

  /** What a score means by the thresholds of its model, as a colour is called. */
  saysOf(value) {
    const [low, high] = this.shown.thresholds[this.className] || [1, 1];
    return value >= high ? "positive" : value >= low ? "indeterminate" : "calm";
  }

  /** Colours of the theme, read anew where it changes. */
  colours() {
    const theme = document.documentElement.dataset.theme;
    if (this.colourTheme === theme) return this.themeColours;
    const style = getComputedStyle(document.documentElement);
    const names = ["well", "line", "positive", "indeterminate", "calm", "text"];
    this.colourTheme = theme;
    return (this.themeColours = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()])));
  }

  // ------------------------------------------------------------------------------ what one does

  setWindow(center, width) {
    this.center = Math.min(Math.max(center, -1024), 3071);
    this.width = Math.min(Math.max(width, 1), 4096);
    this.draw();
  }

  makePresets() {
    this.$("presets").replaceChildren(...PRESETS.map(([name, center, width], index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.value = `${center}/${width}`;
      button.title = `C ${center} W ${width}, key ${index + 1}`;
      button.addEventListener("click", () => this.setWindow(center, width));
      return button;
    }));
  }

  follow() {
    this.$("series").addEventListener("change", (event) => this.choose(this.series[Number(event.target.value)]));
    this.$("class").addEventListener("change", (event) => { this.className = event.target.value; this.draw(); });
    this.stage.addEventListener("wheel", (event) => { event.preventDefault(); this.turn(event); }, { passive: false });
    this.stage.addEventListener("pointerdown", (event) => this.drag(event));
    this.strip.addEventListener("pointerdown", (event) => this.slide(event));
    addEventListener("keydown", (event) => this.key(event));
    addEventListener("resize", () => this.draw());
    document.getElementById("theme").addEventListener("click", () => this.draw());
  }

  turn(event) {
    this.turned = (this.turned || 0) + event.deltaY;
    const step = Math.trunc(this.turned / 40) || (event.deltaMode ? Math.sign(event.deltaY) : 0);
    if (step) { this.turned = 0; this.go(this.at + Math.sign(step)); }
  }

  /** A mouse drags the window; a finger turns slices up and down, two fingers drag the window. */
  drag(event) {
    if (event.button > 0) return;
    this.stage.setPointerCapture(event.pointerId);
    this.fingers = (this.fingers || 0) + 1;
    const from = { x: event.clientX, y: event.clientY, center: this.center, width: this.width, at: this.at };
    const slides = event.pointerType === "touch" && this.fingers === 1;
    const move = (to) => {
      if (to.pointerId !== event.pointerId) return;
      const [right, down] = [to.clientX - from.x, to.clientY - from.y];
      if (slides && this.fingers === 1) this.go(from.at + Math.round(down / 12));
      else this.setWindow(from.center + down, from.width + 2 * right);
    };
    const end = (to) => {
      if (to.pointerId !== event.pointerId) return;
      this.fingers -= 1;
      for (const name of ["pointerup", "pointercancel"]) this.stage.removeEventListener(name, end);
      this.stage.removeEventListener("pointermove", move);
    };
    this.stage.addEventListener("pointermove", move);
    for (const name of ["pointerup", "pointercancel"]) this.stage.addEventListener(name, end);
  }

  slide(event) {
    if (event.button > 0) return;
    this.strip.setPointerCapture(event.pointerId);
    const to = (at) => {
      const box = this.strip.getBoundingClientRect();
      this.go(Math.floor(((at.clientX - box.left) / box.width) * this.slices.length));
    };
    const end = () => {
      this.strip.removeEventListener("pointermove", to);
      for (const name of ["pointerup", "pointercancel"]) this.strip.removeEventListener(name, end);
    };
    this.strip.addEventListener("pointermove", to);
    for (const name of ["pointerup", "pointercancel"]) this.strip.addEventListener(name, end);
    to(event);
  }

  key(event) {
    if (event.target.closest("input, select, textarea, .facts") || event.ctrlKey || event.metaKey || event.altKey) return;
    const steps = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1, PageUp: -10, PageDown: 10 };
    const preset = PRESETS[Number(event.key) - 1];
    if (event.key in steps) this.go(this.at + steps[event.key]);
    else if (event.key === "Home") this.go(0);
    else if (event.key === "End") this.go(this.slices.length - 1);
    else if (preset) this.setWindow(preset[1], preset[2]);
    else if (event.key === "n" || event.key === "N") this.nextKey();
    else return;
    event.preventDefault();
  }
}

window.Viewer = Viewer;
