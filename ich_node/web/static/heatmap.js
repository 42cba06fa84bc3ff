// Where the score comes from: the network's map of a key slice, a layer over the viewer's canvas, blended in by hand.
"use strict";

const FAINTEST = 0.15; // of the highest share: nothing is drawn below it
const DENSEST_FROM = 0.75;
const FIRST_BLEND = 70;

/** Inferno (S. van der Walt, N. Smith): brightness rises all the way, so it is read without seeing colours. Polynomials of M. Zucker. */
const INFERNO = [
  [0.00021894, 0.00165100, -0.01948090], [0.10651342, 0.56395644, 3.93271239], [11.60249308, -3.97285397, -15.94239411],
  [-41.70399613, 17.43639888, 44.35414520], [77.16293570, -33.40235894, -81.80730926],
  [-71.31942824, 32.62606426, 73.20951986], [25.13112622, -12.24266895, -23.07032500],
];

function inferno(share) {
  return [0, 1, 2].map((channel) => {
    const value = INFERNO.reduceRight((sum, row) => sum * share + row[channel], 0);
    return Math.round(255 * Math.min(1, Math.max(0, value)));
  });
}

/** Colours of the 256 shares, faint ones transparent. */
function heatTable() {
  const table = new Uint8ClampedArray(1024);
  for (let value = 0; value < 256; value++) {
    const share = value / 255;
    const dense = Math.min(1, Math.max(0, (share - FAINTEST) / (DENSEST_FROM - FAINTEST)));
    table.set([...inferno(0.25 + 0.75 * share), Math.round(255 * dense)], 4 * value);
  }
  return table;
}

class Heatmap {
  constructor(viewer) {
    this.viewer = viewer;
    this.slider = document.getElementById("heat");
    this.control = this.slider.parentElement;
    this.blend = 0;
    this.last = FIRST_BLEND;
    this.maps = new Map(); // key of the slice: a promise of its picture
    this.table = heatTable();
    this.makeLayer();
    this.follow();
    this.load();
  }

  makeLayer() {
    this.layer = document.createElement("canvas");
    this.layer.className = "heat-layer";
    this.layer.hidden = true;
    this.layer.setAttribute("aria-hidden", "true");
    this.viewer.canvas.after(this.layer);
    this.note = document.createElement("p");
    this.note.className = "heat-note";
    this.note.id = "heat-note";
    this.note.hidden = true;
    this.note.setAttribute("role", "status");
    this.viewer.stage.append(this.note);
    this.said = document.createElement("output");
    this.control.append(this.said);
  }

  follow() {
    this.slider.addEventListener("input", () => this.setBlend(Number(this.slider.value)));
    addEventListener("keydown", (event) => {
      if (event.target.closest("input:not([type=range]), select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "h" || event.key === "H") { this.setBlend(this.blend ? 0 : this.last); event.preventDefault(); }
    });
    new MutationObserver(() => this.draw()).observe(this.viewer.stage, { attributeFilter: ["data-shown"] });
    new ResizeObserver(() => this.place()).observe(this.viewer.canvas);
    new MutationObserver(() => this.place()).observe(this.viewer.canvas, { attributeFilter: ["style", "class"] });
    const { load, clear } = this.viewer;
    this.viewer.load = (...words) => { this.load(); return load.apply(this.viewer, words); };
    this.viewer.clear = (...words) => { delete this.viewer.stage.dataset.shown; return clear.apply(this.viewer, words); };
  }

  /** Read which slices have a map: another revision has others. */
  async load() {
    let found;
    try {
      const answer = await ich.ask(`/studies/${this.viewer.study}/heatmaps`, { byItself: true, headers: { Accept: "application/json" } });
      if (!answer.ok) return;
      found = (await answer.json()).slices;
    } catch { return; } // the node is away: it is asked again when something changes
    this.has = new Set(found.map((one) => `${one.uid}/${one.frame ?? ""}`));
    this.maps.clear();
    this.control.hidden = !this.has.size;
    if (!this.has.size) this.setBlend(0);
    else this.draw();
  }

  setBlend(value) {
    if (!this.has?.size) value = 0;
    if (value) this.last = value;
    this.blend = value;
    this.slider.value = value;
    this.said.textContent = `${value} %`;
    this.draw();
  }

  async draw() {
    const key = this.viewer.stage.dataset.shown;
    const shows = this.blend > 0 && Boolean(key);
    this.note.hidden = !shows;
    if (!shows || !this.has?.has(key)) {
      this.layer.hidden = true;
      if (shows) this.say("No map of this slice: maps are made of the key slices. Key N goes to the next one.");
      return;
    }
    const picture = await this.picture(key);
    if (key !== this.viewer.stage.dataset.shown || !this.blend) return;
    if (!picture) { this.layer.hidden = true; this.say("The map of this slice cannot be read now."); return; }
    this.layer.width = picture.width;
    this.layer.height = picture.height;
    this.layer.getContext("2d").putImageData(picture, 0, 0);
    this.layer.style.opacity = this.blend / 100;
    this.layer.hidden = false;
    this.layer.dataset.shown = key;
    this.place();
    this.say("Where the score comes from (network's map, not a segmentation)", true);
  }

  say(text, withScale = false) {
    if (this.note.dataset.says === text) return;
    this.note.dataset.says = text;
    this.note.replaceChildren(text, ...(withScale ? [this.scale()] : []));
  }

  scale() {
    const bar = document.createElement("canvas");
    bar.className = "heat-scale";
    [bar.width, bar.height] = [256, 1];
    const colours = this.table.slice();
    for (let value = 0; value < 256; value++) colours[4 * value + 3] = 255;
    bar.getContext("2d").putImageData(new ImageData(colours, 256, 1), 0, 0);
    return bar;
  }

  picture(key) {
    if (!this.maps.has(key)) this.maps.set(key, this.fetchMap(key));
    return this.maps.get(key);
  }

  async fetchMap(key) {
    const [uid, frame] = key.split("/");
    try {
      const answer = await ich.ask(`/studies/${this.viewer.study}/heatmaps/${uid}${frame ? `?frame=${frame}` : ""}`, { byItself: true, headers: { Accept: "application/json" } });
      if (!answer.ok) throw new Error(String(answer.status));
      const [rows, columns] = ["X-Rows", "X-Columns"].map((name) => Number(answer.headers.get(name)));
      return this.colour(new Uint8Array(await answer.arrayBuffer()), rows, columns);
    } catch {
      this.maps.delete(key);
      return null;
    }
  }

  colour(shares, rows, columns) {
    const picture = new ImageData(columns, rows);
    const [pixels, table] = [new Uint32Array(picture.data.buffer), new Uint32Array(this.table.buffer)];
    for (let index = 0; index < shares.length; index++) pixels[index] = table[shares[index]];
    return picture;
  }

  /** Lie exactly over the slice, also where it is enlarged or moved. */
  place() {
    const { canvas } = this.viewer;
    const style = this.layer.style;
    [style.left, style.top, style.width, style.height] = [canvas.offsetLeft, canvas.offsetTop, canvas.offsetWidth, canvas.offsetHeight].map((value) => `${value}px`);
    style.transform = canvas.style.transform;
    style.transformOrigin = canvas.style.transformOrigin;
  }
}

if (window.viewer) window.heatmap = new Heatmap(window.viewer);
