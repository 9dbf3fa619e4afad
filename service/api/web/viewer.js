// The result's slices: server-made PNGs, one plane at a time.

import { call, json } from "./api.js";
import { el, plain } from "./dom.js";

const PLANES = ["axial", "coronal", "sagittal"];
const KEPT = 120;
const EDGES = { axial: ["R", "L"], coronal: ["R", "L"], sagittal: ["A", "P"] };

class Pictures {
  constructor(base) {
    this.base = base;
    this.urls = new Map();
  }

  get(plane, index, overlay) {
    const path = `${this.base}/${index}.png?plane=${plane}&overlay=${overlay ? 1 : 0}`;
    const found = this.urls.get(path) ?? this.load(path);
    this.urls.delete(path);
    this.urls.set(path, found);
    this.shrink();
    return found;
  }

  async load(path) {
    try {
      return URL.createObjectURL(await (await call(path)).blob());
    } catch (problem) {
      this.urls.delete(path);
      throw problem;
    }
  }

  shrink() {
    while (this.urls.size > KEPT) {
      const [path, picture] = this.urls.entries().next().value;
      this.urls.delete(path);
      picture.then((url) => URL.revokeObjectURL(url), () => {});
    }
  }

  clear() {
    for (const picture of this.urls.values()) picture.then((url) => URL.revokeObjectURL(url), () => {});
    this.urls.clear();
  }
}

export class Viewer {
  static async open(job) {
    return new Viewer(job, await json(job.links.slices));
  }

  constructor(job, layout) {
    this.layout = layout;
    this.pictures = new Pictures(job.links.slices);
    this.plane = "axial";
    this.overlay = true;
    this.index = Object.fromEntries(PLANES.map((plane) => [plane, layout.planes[plane].start]));
    this.root = this.build();
    this.show();
  }

  get count() { return this.layout.planes[this.plane].count; }

  build() {
    this.image = el("img", { alt: "", draggable: "false" });
    this.position = el("span", { class: "corner tl", "aria-hidden": "true" });
    this.planeName = el("span", { class: "corner tr", "aria-hidden": "true" });
    this.left = el("span", { class: "corner left", "aria-hidden": "true" });
    this.right = el("span", { class: "corner right", "aria-hidden": "true" });
    this.stage = el("div", { class: "stage", tabindex: "0", role: "group", id: "stage",
      "aria-label": "Slices. Arrow keys move, Page keys move ten, O toggles the overlay." },
    this.image, this.position, this.planeName, this.left, this.right);
    this.stage.addEventListener("keydown", (event) => this.key(event));
    this.stage.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.slider = el("input", { type: "range", min: "0", step: "1", id: "slice", "aria-label": "Slice" });
    this.slider.addEventListener("input", () => this.go(Number(this.slider.value)));
    this.toggle = el("input", { type: "checkbox", checked: true, id: "overlay" });
    this.toggle.addEventListener("change", () => this.setOverlay(this.toggle.checked));
    return el("div", { class: "viewer" }, this.stage, this.controls(), LEGEND());
  }

  controls() {
    return el("div", { class: "controls" },
      el("fieldset", { class: "segmented" }, el("legend", { class: "visually-hidden" }, "Plane"), PLANES.map((p) => this.tab(p))),
      el("div", { class: "range" }, this.slider),
      el("label", { class: "check" }, this.toggle, "Overlay"));
  }

  tab(plane) {
    const input = el("input", { type: "radio", name: "plane", value: plane, checked: plane === this.plane });
    input.addEventListener("change", () => this.setPlane(plane));
    return el("label", {}, input, el("span", {}, plain(plane)));
  }

  setPlane(plane) {
    this.plane = plane;
    this.root.querySelector(`input[value="${plane}"]`).checked = true;
    this.show();
  }

  setOverlay(on) {
    this.overlay = this.toggle.checked = on;
    this.show();
  }

  go(index) {
    this.index[this.plane] = Math.min(Math.max(index, 0), this.count - 1);
    this.show();
  }

  jump(lesion) {
    for (const plane of PLANES) this.index[plane] = lesion[plane];
    this.show();
    this.stage.focus({ preventScroll: true });
    this.stage.scrollIntoView({ block: "nearest" });
  }

  key(event) {
    const step = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10 }[event.key];
    const target = { Home: 0, End: this.count - 1 }[event.key];
    if (step) this.go(this.index[this.plane] + step);
    else if (target !== undefined) this.go(target);
    else if (event.key.toLowerCase() === "o") this.setOverlay(!this.overlay);
    else return;
    event.preventDefault();
  }

  wheel(event) {
    event.preventDefault();
    if (event.deltaY) this.go(this.index[this.plane] - Math.sign(event.deltaY));
  }

  async show() {
    const { plane, overlay } = this;
    const index = this.index[plane];
    this.slider.max = String(this.count - 1);
    this.slider.value = String(index);
    this.position.textContent = `${index + 1} / ${this.count}`;
    this.planeName.textContent = plain(plane);
    [this.left.textContent, this.right.textContent] = EDGES[plane];
    const wanted = `${plane} slice ${index + 1} of ${this.count}, mask ${overlay ? "shown" : "hidden"}`;
    this.wanted = wanted;
    try {
      const url = await this.pictures.get(plane, index, overlay);
      if (this.wanted !== wanted) return;
      this.image.src = url;
      this.image.alt = plain(wanted);
      this.ahead(plane, index, overlay);
    } catch (problem) {
      if (this.wanted === wanted) this.image.alt = problem.message;
    }
  }

  ahead(plane, index, overlay) {
    for (const next of [index + 1, index - 1])
      if (next >= 0 && next < this.layout.planes[plane].count) this.pictures.get(plane, next, overlay).catch(() => {});
  }

  close() { this.pictures.clear(); }
}

const LEGEND = () => el("p", { class: "legend" },
  el("span", {}, el("i", { class: "liver" }), "Liver"),
  el("span", {}, el("i", { class: "tumour" }), "Tumour"),
  el("span", {}, el("kbd", {}, "↑"), " ", el("kbd", {}, "↓"), " slice  ", el("kbd", {}, "O"), " overlay"));
