// A CT in three planes and in 3-D, with label maps over it: niivue, loaded only when it is asked for.
//
// A figure of class ct-viewer holds a picture and a button; `data-case` names the case that the
// button opens. A case is a script, so that pages read from a folder have it, too.
(() => {
  const HERE = new URL(".", document.currentScript.src);
  const WINDOW = { level: 40, width: 400 };
  const KINDS = { truth: "true outline", found: "what the networks found", map: "tumor probability" };
  const COLORS = { // of background, kidney, tumor; okabe-ito, as in the figures
    truth: { R: [0, 86, 230], G: [0, 180, 159], B: [0, 233, 0], A: [0, 255, 255], I: [0, 1, 2], labels: ["", "kidney", "tumor"] },
  };
  COLORS.found = COLORS.truth;
  const loaded = new Map();

  /** Load a script of this site, once. */
  function script(name) {
    if (!loaded.has(name))
      loaded.set(name, new Promise((resolve, reject) => {
        const element = document.createElement("script");
        element.src = new URL(name, HERE);
        element.onload = resolve;
        element.onerror = () => {
          loaded.delete(name); // the next time may be another network
          element.remove();
          reject(new Error(`${name} could not be loaded`));
        };
        document.head.append(element);
      }));
    return loaded.get(name);
  }

  /** A case of the book: its CT, the true label map, and what the networks found, as files. */
  async function caseFiles(name) {
    await script(`made/${name}.js`);
    const packed = window.ctCases[name];
    const file = (key) => new File([bytes(packed[key])], key === "ct" ? packed.name : `${key}.nii.gz`);
    return { ct: file("ct"), truth: file("truth"), found: file("found") };
  }

  function bytes(text) {
    return Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
  }

  /**
   * Show a CT in an element. `files` are `ct`, and any of `truth`, `found`, `map` to lay over it.
   * Gives the viewer: `show(kind, file)` replaces a layer.
   */
  async function open(element, files) {
    await script("vendor/niivue/niivue.umd.js");
    const gl = document.createElement("canvas").getContext("webgl2");
    if (!gl) throw new Error("this browser has no WebGL 2, which the viewer draws with");
    gl.getExtension("WEBGL_lose_context")?.loseContext();
    const viewer = new Viewer(element);
    try {
      await viewer.begin(files);
    } catch (error) {
      viewer.close(); // a browser gives few WebGL contexts
      throw error;
    }
    return viewer;
  }

  class Viewer {
    constructor(element) {
      this.element = element;
      this.layers = new Map(); // kind → volume
      this.opacity = 0.5;
      this.shown = null;
      element.classList.add("ct-viewer-live");
      element.innerHTML = `
        <div class="ct-viewer-stage">
          <canvas tabindex="0" role="application" aria-roledescription="CT viewer" aria-label="CT in three planes and in 3-D. Arrow keys move the
            cross within the slice, Page Up and Page Down from slice to slice."></canvas>
        </div>
        <output class="ct-viewer-voxel"></output>
        <div class="ct-viewer-controls"></div>`;
      this.canvas = element.querySelector("canvas");
      this.voxel = element.querySelector("output");
      this.controls = element.querySelector(".ct-viewer-controls");
    }

    async begin(files) {
      const { Niivue, MULTIPLANAR_TYPE, SHOW_RENDER } = window.niivue;
      this.nv = new Niivue({
        backColor: [0, 0, 0, 1], // in both modes: grays are judged by what is around them
        crosshairColor: [0.94, 0.89, 0.26, 0.8],
        crosshairWidth: 1,
        fontColor: [0.94, 0.89, 0.26, 1], // as bright on bone as on air
        multiplanarShowRender: SHOW_RENDER.ALWAYS,
        multiplanarLayout: MULTIPLANAR_TYPE.GRID,
        clipPlaneColor: [0, 0, 0, 0],
        isRadiologicalConvention: true,
        sagittalNoseLeft: true,
        isNearestInterpolation: false,
        dragAndDropEnabled: false, // niivue would throw away what is shown
        viewModeHotKey: "none", // keys that would change what the controls say
        clipPlaneHotKey: "none",
        cycleClipPlaneHotKey: "none",
        loadingText: "",
        logLevel: "error",
      });
      await this.nv.attachToCanvas(this.canvas);
      this.nv.setRenderAzimuthElevation(160, 15);
      this.nv.onLocationChange = (location) => this.#say(location);
      await this.#add("ct", files.ct);
      for (const kind of Object.keys(KINDS)) if (files[kind]) await this.#add(kind, files[kind]);
      this.#buildControls();
      this.choose(this.layers.has("found") ? "found" : [...this.layers.keys()][1] ?? "none");
      this.#lookAtTumor();
      this.canvas.addEventListener("keydown", (event) => this.#onKey(event));
    }

    /** Replace a layer, or lay a first one over the CT. */
    async show(kind, file) {
      if (this.layers.has(kind)) this.nv.removeVolume(this.layers.get(kind));
      const isNew = !this.layers.has(kind);
      await this.#add(kind, file);
      if (isNew) this.#buildControls();
      this.choose(isNew || this.shown === "none" ? kind : this.shown);
    }

    /** Give back what it holds: the card's memory, and the CT. */
    close() {
      this.nv?.cleanup();
      this.nv?.gl?.getExtension("WEBGL_lose_context")?.loseContext();
      this.layers.clear();
    }

    /** Show one layer over the CT, or none. */
    choose(kind) {
      this.shown = kind;
      for (const [each] of this.layers) if (each !== "ct") this.#setOpacity(each, each === kind ? this.opacity : 0);
      for (const radio of this.controls.querySelectorAll("input[type=radio]")) radio.checked = radio.value === kind;
    }

    async #add(kind, file) {
      const look = { ct: { colormap: "gray" }, map: { colormap: "warm" } }[kind] ?? { colormap: "gray" };
      const range = { ct: [WINDOW.level - WINDOW.width / 2, WINDOW.level + WINDOW.width / 2], map: [26, 255] }[kind] ?? [0, 2];
      const image = await window.niivue.NVImage.loadFromFile({
        file, name: file.name, opacity: kind === "ct" ? 1 : 0, cal_min: range[0], cal_max: range[1], ...look,
      });
      if (COLORS[kind]) image.setColormapLabel(COLORS[kind]);
      [image.cal_min, image.cal_max] = range;
      this.nv.addVolume(image);
      this.layers.set(kind, image);
    }

    #setOpacity(kind, opacity) {
      this.nv.setOpacity(this.nv.volumes.indexOf(this.layers.get(kind)), opacity);
    }

    #buildControls() {
      const kinds = Object.keys(KINDS).filter((kind) => this.layers.has(kind));
      const name = `layer-${Math.random().toString(36).slice(2)}`;
      const radio = (kind, text) => `<label><input type="radio" name="${name}" value="${kind}"> ${text}</label>`;
      const slider = (key, text, low, high, value) =>
        `<label>${text} <input type="range" data-key="${key}" min="${low}" max="${high}" value="${value}">
          <output>${value}</output></label>`; // behind it, or the label would be the output's
      const layers = kinds.length
        ? `<fieldset><legend>Over the CT: blue is kidney, orange is tumor</legend>${kinds.map((kind) => radio(kind, KINDS[kind])).join("")}
           ${radio("none", "nothing")}</fieldset>${slider("opacity", "Opacity", 0, 100, 100 * this.opacity)}`
        : "";
      this.controls.innerHTML = `${layers}
        ${slider("level", "Brightness (window's middle, HU)", -600, 600, WINDOW.level)}
        ${slider("width", "Contrast (window's width, HU)", 50, 2000, WINDOW.width)}
        ${slider("clip", "Cut the 3-D view open", 0, 100, 40)}
        <label>View <select><option value="all">all four</option><option value="axial">axial</option>
          <option value="coronal">coronal</option><option value="sagittal">sagittal</option>
          <option value="3d">3-D</option></select></label>`;
      this.controls.oninput = ({ target }) => this.#turn(target);
      this.#turn(this.controls.querySelector("[data-key=clip]"));
    }

    #turn(control) {
      const value = (key) => Number(this.controls.querySelector(`[data-key=${key}]`).value);
      const { nv } = this;
      if (control.type === "range") control.nextElementSibling.value = control.value;
      if (control.type === "radio") this.choose(control.value);
      else if (control.tagName === "SELECT") nv.setSliceType({ all: nv.sliceTypeMultiplanar, axial: nv.sliceTypeAxial,
        coronal: nv.sliceTypeCoronal, sagittal: nv.sliceTypeSagittal, "3d": nv.sliceTypeRender }[control.value]);
      else if (control.dataset.key === "opacity") { this.opacity = value("opacity") / 100; this.choose(this.shown); }
      else if (control.dataset.key === "clip") nv.setClipPlane([value("clip") ? 0.6 - value("clip") / 100 : 2, 180, 0]);
      else {
        const ct = this.layers.get("ct");
        [ct.cal_min, ct.cal_max] = [value("level") - value("width") / 2, value("level") + value("width") / 2];
        nv.updateGLVolume();
      }
    }

    /** Put the cross into the middle of the tumor that is shown, if there is one. */
    #lookAtTumor() {
      const label = this.layers.get("truth") ?? this.layers.get("found");
      if (!label) return;
      const { dims: [, nx, ny], affine } = label.hdr;
      const places = [];
      label.img.forEach((value, place) => { if (value === 2) places.push(place); });
      if (!places.length) return;
      const place = places[Math.floor(places.length / 2)];
      const voxel = [place % nx, Math.floor(place / nx) % ny, Math.floor(place / (nx * ny)), 1];
      const mm = affine.slice(0, 3).map((row) => row.reduce((sum, value, k) => sum + value * voxel[k], 0));
      this.nv.scene.crosshairPos = this.nv.mm2frac(mm);
      this.nv.createOnLocationChange();
      this.nv.drawScene();
    }

    #say({ values }) {
      const hu = values?.[0]?.value;
      if (hu === undefined) return;
      const said = [`${Math.round(hu)} HU`];
      for (const [kind, volume] of this.layers) {
        const value = values[this.nv.volumes.indexOf(volume)]?.value;
        if (kind === "truth") said.push(`true: ${name(value)}`);
        if (kind === "found") said.push(`found: ${name(value)}`);
        if (kind === "map") said.push(`tumor: ${Math.round(value / 2.55)} %`);
      }
      this.voxel.textContent = `At the cross: ${said.join(" · ")}`;
    }

    #onKey(event) {
      // x grows toward the patient's right, which is on the left of the picture.
      // To the left, up, and to the next slice, as each view shows it; with all four, as the axial one.
      const axes = { [this.nv.sliceTypeCoronal]: [[1, 0, 0], [0, 0, 1], [0, 1, 0]],
        [this.nv.sliceTypeSagittal]: [[0, 1, 0], [0, 0, 1], [1, 0, 0]] };
      const [left, up, next] = axes[this.nv.opts.sliceType] ?? [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
      const back = (step) => step.map((count) => -count);
      const steps = { ArrowLeft: left, ArrowRight: back(left), ArrowUp: up, ArrowDown: back(up),
        PageUp: next, PageDown: back(next) };
      if (!(event.key in steps)) return;
      event.preventDefault();
      this.nv.moveCrosshairInVox(...steps[event.key]);
    }
  }

  function name(value) {
    return ["background", "kidney", "tumor"][Math.round(value)] ?? "background";
  }

  function prepare(figure) {
    const button = figure.querySelector("button");
    if (!button) return;
    button.hidden = false;
    button.addEventListener("click", async () => {
      button.disabled = true;
      button.textContent = "Loading …";
      const stage = document.createElement("div");
      try {
        const files = await caseFiles(figure.dataset.case);
        figure.prepend(stage);
        figure.viewer = await open(stage, files);
        figure.querySelector("img").remove();
        button.remove();
        figure.viewer.canvas.focus({ preventScroll: true });
      } catch (error) {
        stage.remove();
        button.disabled = false; // the next time may be another network
        button.textContent = `The viewer cannot be shown: ${error.message}. Try again`;
        // Whoever waited there has the keyboard there again, and hears of it.
        if (document.activeElement === document.body) button.focus({ preventScroll: true });
      }
    });
  }

  window.ctViewer = { open, caseFiles, script };
  document.addEventListener("DOMContentLoaded", () => document.querySelectorAll(".ct-viewer").forEach(prepare));
})();
