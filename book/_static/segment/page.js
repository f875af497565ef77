// The page "Segment a CT here": what the reader does goes to the worker, what it says is shown.

import { BadFile } from "./nifti.js";
import { findSeries, findStack, isDicom } from "./series.js";

const PHANTOMS = { typical: "a tumor of typical size", small: "a small tumor", large: "a large tumor" };
// Of Algorithm 1, in the order in which it uses them.
const SLIDERS = {
  high_threshold: "T: surely inside, from",
  whole_low_threshold: "Kidney grows down to",
  tumor_low_threshold: "Tumor grows down to",
  small_tumor_low_threshold: "Small tumor grows down to",
  empty_low_threshold: "If nothing reaches T, from",
  lnet_threshold: "L-Net's mask, from",
};

class Page {
  constructor(root) {
    this.root = root;
    root.innerHTML = `
      <div class="drop">
        <p><strong>A phantom of this book:</strong><br>${Object.entries(PHANTOMS)
          .map(([name, text]) => `<button type="button" data-case="${name}">${text}</button>`).join("")}</p>
        <p><strong>Or a CT of your own,</strong> dropped here or chosen:</p>
        <p><label>.nii or .nii.gz <input type="file" accept=".nii,.gz"></label>
          <label>a folder of DICOM <input type="file" class="folder" webkitdirectory></label></p>
      </div>
      <p class="said" role="status" tabindex="-1"></p>
      <p class="series"></p>
      <div class="working" hidden><progress max="1" value="0" aria-label="Windows done"></progress>
        <span class="count"></span>
        <button type="button" class="stop">Stop</button></div>
      <p class="doubts" role="status"></p>
      <p class="unseen" role="status"></p>
      <div class="stage"></div>
      <div class="result" hidden>
        <table class="table"><thead><tr><th>ml</th><th>right</th><th>left</th><th>both</th></tr></thead><tbody></tbody></table>
        <button type="button" class="save">Download the label map (NIfTI)</button>
        <fieldset><legend>Algorithm 1</legend><div class="sliders"></div></fieldset>
      </div>`;
    this.part = (selector) => root.querySelector(selector);
    this.number = 0;
    this.choices = []; // a button for each series, where there are several
    this.#listen();
  }

  #listen() {
    for (const button of this.root.querySelectorAll("[data-case]"))
      button.onclick = async () => {
        const run = this.#forget("Loading the phantom …");
        try {
          const { ct, truth } = await window.ctViewer.caseFiles(button.dataset.case);
          if (run === this.run) this.start(ct, truth);
        } catch (error) { if (run === this.run) this.#say(`${error.message}.`); }
      };
    for (const input of this.root.querySelectorAll("input[type=file]"))
      input.onchange = () => {
        const files = [...input.files].filter(({ name }) => !name.startsWith("."));
        input.value = ""; // so that the same one can be chosen again
        if (files.length) this.take(files);
      };
    const drop = this.part(".drop");
    // Also onto a CT that is shown: before its viewer, which keeps such events for itself.
    const listen = (name, handle) => this.root.addEventListener(name, handle, { capture: true });
    listen("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
    listen("dragleave", () => drop.classList.remove("over"));
    listen("drop", async (event) => {
      event.preventDefault();
      drop.classList.remove("over");
      // What was dropped can be asked for now only; what it holds, later.
      const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
      if (!entries.length) return; // a text, or a picture of the page
      const run = this.#forget("Looking what there is …");
      try {
        const files = (await Promise.all(entries.map(filesOf))).flat();
        if (run === this.run) this.take(files);
      } catch (error) { if (run === this.run) this.#say(`${error.message}.`); } // a folder that cannot be read
    });
    this.part(".stop").onclick = () => {
      // What was decided already stays, and so does the worker that can change it.
      if (!this.part(".result").hidden) return this.worker.postMessage({ do: "stop" });
      this.#end();
      this.#say("Stopped.");
      this.part(".series").replaceChildren(...this.choices);
    };
    this.part(".save").onclick = () => this.worker.postMessage({ do: "save", label: this.label });
    this.part(".sliders").oninput = () => this.#decide();
  }

  /** Take files that were dropped or chosen: one NIfTI, or DICOM, of which there may be several series. */
  async take(files) {
    const run = this.#forget(`Looking through ${files.length} files …`);
    try {
      const [first] = files;
      const isSingle = files.length === 1 && !(await isDicom(first));
      if (run !== this.run) return;
      if (isSingle) return this.start(first);
      await window.ctViewer.script("vendor/dicom-parser/dicomParser.min.js");
      const { series, leftOut } = await findSeries(files);
      if (run !== this.run) return;
      const without = leftOut && `Left out: ${leftOut}.`;
      if (!series.length)
        throw new BadFile(
          ["There are no CT slices here.", without, "Drop one .nii or .nii.gz, or one folder of DICOM."].filter(Boolean).join(" "));
      if (series.length === 1) return this.#startSeries(series[0], without);
      this.#say(`There are ${series.length} series. ${without}`);
      this.choices = series.map((one, k) => {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = `Series ${k + 1}: ${one.text}`;
        button.onclick = () => this.#startSeries(one, without);
        return button;
      });
      this.part(".series").replaceChildren(...this.choices);
    } catch (error) {
      if (run !== this.run) return;
      this.#say(error instanceof BadFile ? error.message : `The files cannot be read: ${error.message}.`);
    }
  }

  #startSeries(series, doubt) {
    try {
      const { slices, ...where } = findStack(series);
      const stack = { files: slices.map(({ file }) => file), pixels: slices.map(({ pixels }) => pixels), ...where };
      this.start(new File([], "ct.nii"), null, { stack, doubt });
    } catch (error) {
      if (!(error instanceof BadFile)) throw error;
      this.#say(error.message); // of several series another one may do
    }
  }

  /** Begin with a CT; of a stack of DICOM the worker makes it. */
  start(file, truth, { stack, doubt = "" } = {}) {
    const run = this.#clear("");
    this.name = file.name;
    this.truth = truth;
    this.doubt = doubt;
    this.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    this.worker.onmessage = ({ data }) => { if (run === this.run) this.hear(data); };
    this.worker.onerror = () => this.#fail("The networks could not be loaded in this browser.");
    this.#work(0);
    this.worker.postMessage({ do: "segment", blob: file, stack, name: file.name });
  }

  /** Begin with other files: of series, too, there are none yet. */
  #forget(text) {
    this.choices = [];
    return this.#clear(text);
  }

  /** What went before is given up. Gives the new run: who waits for something, asks whether it is still that. */
  #clear(text) {
    this.#end();
    this.viewer?.close();
    this.viewer = null;
    this.#leave(".series");
    for (const part of [".stage", ".series", ".doubts", ".unseen"]) this.part(part).replaceChildren();
    this.part(".result").hidden = true;
    this.#say(text);
    return (this.run = {});
  }

  /** What the worker says. */
  hear(data) {
    return this.#answers[data.say](data);
  }

  #answers = {
    step: ({ text }) => { this.#say(`${text} …`); this.#work(); },
    ready: ({ config, warnings, ct }) => {
      this.ct = new File([ct], "ct.nii"); // as it was understood, for the viewer
      this.part(".doubts").textContent = [this.doubt, ...warnings].filter(Boolean).join(" ");
      this.#buildSliders(config);
    },
    window: ({ done, all, where }) => {
      this.#say(`TuNet looks, ${where} …`); // which is read aloud: not with each window
      this.#work(done / all, `window ${done} of ${all}`);
    },
    result: async (result) => {
      this.#rest();
      const doubts = [...result.doubts, doubtOf(result)].filter(Boolean).join(" ");
      this.#say(`Done ${result.where}. Move the sliders, and the label map follows. ${doubts}`);
      this.label = result.label;
      this.#fill(result);
      await this.#show(result);
    },
    stopped: () => { this.#rest(); this.#say("Stopped. What is shown is that of before."); },
    failed: ({ sentence }) => this.#fail(sentence),
    file: ({ blob }) => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = `${this.name.replace(/\.nii(\.gz)?$/, "")}_label.nii.gz`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 40_000); // Safari fetches it later
    },
  };

  #buildSliders(config) {
    const value = (key) => config[key].toFixed(2);
    this.part(".sliders").innerHTML = Object.entries(SLIDERS).map(([key, text]) =>
      `<label>${text} <output>${value(key)}</output>
        <input type="range" name="${key}" aria-label="${text}" min="0.01" max="0.99" step="0.01" value="${value(key)}"></label>`).join("") +
      `<label><input type="checkbox" name="tumor_is_whole_if_none" ${config.tumor_is_whole_if_none ? "checked" : ""}>
        Line 14: without any tumor, all is tumor</label>`;
  }

  #decide() {
    const config = {};
    for (const input of this.part(".sliders").querySelectorAll("input")) {
      config[input.name] = input.type === "checkbox" ? input.checked : Number(input.value);
      const shown = input.parentElement.querySelector("output");
      if (shown) shown.textContent = Number(input.value).toFixed(2);
    }
    this.worker.postMessage({ do: "decide", config, number: ++this.number });
  }

  #fill({ ml }) {
    this.part("tbody").innerHTML = ["kidney", "tumor"].map((name) => {
      const [right, left] = ["right", "left"].map((side) => ml[`${name}_${side}`]);
      const cells = [name, ...[right, left, right + left].map((one) => one.toFixed(1))];
      return `<tr>${cells.map((cell) => `<td>${cell}</td>`).join("")}</tr>`;
    }).join("");
    this.part(".result").hidden = false;
  }

  /** Show what was found, one result after the other; of those that wait, the newest. */
  #show({ files }) {
    const { run } = this;
    this.newest = files;
    const isWanted = () => run === this.run && files === this.newest;
    this.showing = (this.showing ?? Promise.resolve()).then(() => isWanted() && this.#layOver(files, run));
    return this.showing;
  }

  async #layOver(files, run) {
    const found = new File([files.label], "found.nii");
    const map = new File([files.tumor], "map.nii");
    try {
      if (this.viewer) {
        await this.viewer.show("found", found);
        if (run === this.run) await this.viewer.show("map", map);
        return;
      }
      const stage = document.createElement("div");
      this.part(".stage").replaceChildren(stage);
      const viewer = await window.ctViewer.open(stage, { ct: this.ct, truth: this.truth, found, map });
      if (run === this.run) this.viewer = viewer;
      else viewer.close(); // something else was chosen meanwhile
    } catch (error) {
      if (run !== this.run) return;
      this.viewer?.close();
      this.viewer = null; // the next result opens another
      this.part(".stage").replaceChildren();
      this.part(".unseen").textContent = `The viewer cannot be shown: ${error.message}. The label map can be downloaded.`;
    }
  }

  /** End with a sentence; without a worker nothing that is shown could be changed or saved. */
  #fail(sentence) {
    this.#end();
    this.part(".result").hidden = true;
    this.#say(sentence);
    this.part(".series").replaceChildren(...this.choices); // another one may do
  }

  #end() {
    this.worker?.terminate();
    this.#rest();
  }

  #rest() {
    this.#leave(".working");
    this.part(".working").hidden = true;
  }

  /** Keep the keyboard's place when the part that has it goes. */
  #leave(part) {
    if (this.part(part).contains(document.activeElement)) this.part(".said").focus();
  }

  #work(share, text = "") {
    this.part(".working").hidden = false;
    this.part(".count").textContent = text;
    if (share === undefined) this.part("progress").removeAttribute("value");
    else this.part("progress").value = share;
  }

  #say(text) {
    if (this.part(".said").textContent !== text) this.part(".said").textContent = text;
  }
}

/** Why the tumor may be none; "" if there is no reason. */
function doubtOf({ byRule, isSure, tumorProb }) {
  if (byRule) return "No tumor was found; all is called tumor by line 14, which holds for KiTS19's patients only.";
  return isSure ? "" : `Not sure of the tumor: its mean probability is ${tumorProb.toFixed(2)}. Look at it (chapter 15).`;
}

/** The files of what was dropped, in depth. */
async function filesOf(entry) {
  if (entry.name.startsWith(".")) return [];
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const within = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // by the hundred
    if (!some.length) return (await Promise.all(within.map(filesOf))).flat();
    within.push(...some);
  }
}

const root = document.querySelector(".segment-here");
if (root) root.page = new Page(root);
