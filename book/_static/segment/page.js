// The page "Segment a CT here": what the reader does goes to the worker, what it says is shown.

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
        <p><label><strong>Or a CT of your own</strong> (.nii or .nii.gz), dropped here or chosen:<br>
          <input type="file" accept=".nii,.gz"></label></p>
      </div>
      <p class="said" role="status"></p>
      <div class="working" hidden><progress max="1" value="0" aria-label="Windows done"></progress>
        <button type="button" class="stop">Stop</button></div>
      <p class="doubts"></p>
      <div class="stage"></div>
      <div class="result" hidden>
        <table class="table"><thead><tr><th>ml</th><th>right</th><th>left</th><th>both</th></tr></thead><tbody></tbody></table>
        <button type="button" class="save">Download the label map (NIfTI)</button>
        <fieldset><legend>Algorithm 1</legend><div class="sliders"></div></fieldset>
      </div>`;
    this.part = (selector) => root.querySelector(selector);
    this.number = 0;
    this.#listen();
  }

  #listen() {
    for (const button of this.root.querySelectorAll("[data-case]"))
      button.onclick = async () => {
        this.#say("Loading the phantom");
        try {
          const { ct, truth } = await window.ctViewer.caseFiles(button.dataset.case);
          this.start(ct, truth);
        } catch (error) { this.#say(`${error.message}.`); }
      };
    this.part("input[type=file]").onchange = ({ target }) => { if (target.files[0]) this.start(target.files[0]); };
    const drop = this.part(".drop");
    drop.ondragover = (event) => { event.preventDefault(); drop.classList.add("over"); };
    drop.ondragleave = () => drop.classList.remove("over");
    drop.ondrop = (event) => {
      event.preventDefault();
      drop.classList.remove("over");
      const files = [...event.dataTransfer.files];
      if (files.length === 1) this.start(files[0]);
      else this.#say("Drop one file, .nii or .nii.gz. For a folder of DICOM use tunet predict.");
    };
    this.part(".stop").onclick = () => { this.#end(); this.#say("Stopped."); };
    this.part(".save").onclick = () => this.worker.postMessage({ do: "save", label: this.label });
    this.part(".sliders").oninput = () => this.#decide();
  }

  /** Begin with a CT; what went before is given up. */
  start(file, truth) {
    this.#end();
    this.ct = file;
    this.truth = truth;
    this.viewer = null;
    this.part(".stage").replaceChildren();
    this.part(".doubts").textContent = "";
    this.part(".result").hidden = true;
    this.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    this.worker.onmessage = ({ data }) => this.hear(data);
    this.worker.onerror = () => { this.#end(); this.#say("The networks could not be loaded in this browser."); };
    this.#work(0);
    this.worker.postMessage({ do: "segment", blob: file, name: file.name });
  }

  /** What the worker says. */
  hear(data) {
    return this.#answers[data.say](data);
  }

  #answers = {
    step: ({ text }) => { this.#say(`${text} …`); this.#work(); },
    ready: ({ config, warnings }) => {
      this.part(".doubts").textContent = warnings.join(" ");
      this.#buildSliders(config);
    },
    window: ({ done, all }) => { this.#say(`TuNet: ${done} of ${all} windows`); this.#work(done / all); },
    result: async (result) => {
      this.part(".working").hidden = true;
      this.#say("Done. Move the sliders, and the label map follows.");
      this.label = result.label;
      this.#fill(result);
      await this.#show(result);
    },
    failed: ({ sentence }) => { this.#end(); this.#say(sentence); },
    file: ({ blob }) => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = `${this.ct.name.replace(/\.nii(\.gz)?$/, "")}_label.nii.gz`;
      link.click();
      URL.revokeObjectURL(link.href);
    },
  };

  #buildSliders(config) {
    const value = (key) => config[key].toFixed(2);
    this.part(".sliders").innerHTML = Object.entries(SLIDERS).map(([key, text]) =>
      `<label>${text} <output>${value(key)}</output>
        <input type="range" name="${key}" min="0.01" max="0.99" step="0.01" value="${value(key)}"></label>`).join("") +
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

  #fill({ ml, byRule }) {
    this.part("tbody").innerHTML = ["kidney", "tumor"].map((name) => {
      const [right, left] = ["right", "left"].map((side) => ml[`${name}_${side}`]);
      const cells = [name, ...[right, left, right + left].map((one) => one.toFixed(1))];
      return `<tr>${cells.map((cell) => `<td>${cell}</td>`).join("")}</tr>`;
    }).join("");
    this.part(".result").hidden = false;
    if (byRule) this.#say("No tumor was found; all is called tumor by line 14, which holds for KiTS19's patients only.");
  }

  async #show({ files }) {
    const found = new File([files.label], "found.nii");
    const map = new File([files.tumor], "map.nii");
    try {
      if (this.viewer) {
        await this.viewer.show("found", found);
        await this.viewer.show("map", map);
      } else this.viewer = await window.ctViewer.open(this.part(".stage"), { ct: this.ct, truth: this.truth, found, map });
    } catch (error) {
      this.part(".stage").textContent = `The viewer cannot be shown: ${error.message}. The label map can be downloaded.`;
    }
  }

  #end() {
    this.worker?.terminate();
    this.part(".working").hidden = true;
  }

  #work(share) {
    this.part(".working").hidden = false;
    if (share === undefined) this.part("progress").removeAttribute("value");
    else this.part("progress").value = share;
  }

  #say(text) {
    this.part(".said").textContent = text;
  }
}

const root = document.querySelector(".segment-here");
if (root) root.page = new Page(root);
