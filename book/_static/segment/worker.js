// The work beside the page: a CT comes in, progress and label maps go out. All of it happens here,
// in the reader's own browser; what is fetched are this book's files.

import { BadFile, plainNifti, readNifti, writeNifti } from "./nifti.js";
import { findCard, Network, openOnProcessor } from "./programs.js";
import { Segmentation } from "./segment.js";

const NETWORKS = new URL("../made/networks/", import.meta.url);

let segmentation = null;
let networks = null; // of each entry of the list, a Network
let ct = null;
let waiting = Promise.resolve();
let isStopped = false;
let newest = 0; // of several settings that wait, only the newest counts

self.onmessage = ({ data }) => {
  if (data.do === "stop") {
    isStopped = true; // what runs looks, between two windows
    return;
  }
  if (data.do === "decide") {
    newest = data.number;
    isStopped = false;
  }
  const task = () => TASKS[data.do](data);
  const tell = (error) => postMessage({ say: "failed", sentence: sentenceOf(error) });
  if (data.do === "save") return void task().catch(tell); // what is shown stays, whatever runs
  waiting = waiting.then(task).catch(tell);
};

const TASKS = {
  async segment({ blob, stack, name, config }) {
    postMessage({ say: "step", text: "Reading the CT" });
    ct = stack ? await (await import("./dicom.js")).readStack(stack) : await readNifti(blob, name);
    postMessage({ say: "step", text: "Loading the networks" });
    const list = await (await fetched("networks.json")).json();
    list.config = { ...list.config, ...config };
    const card = await findCard();
    networks = new Map();
    for (const entry of list.networks) {
      const graph = await (await fetched(entry.file)).arrayBuffer();
      const onCard = entry.network === "tunet" && card?.open(graph); // L-Net looks once: to try that gains nothing
      networks.set(entry, new Network(await openOnProcessor(graph), await onCard));
    }
    postMessage({ say: "step", text: "Bringing the CT to the grid" });
    segmentation = new Segmentation(ct, list, (entry, image, shape) => networks.get(entry).run(image, shape));
    const { warnings, shift } = segmentation;
    postMessage({ say: "ready", config: list.config, warnings, ct: plainNifti(ct.voxels, ct, shift) });
    postMessage({ say: "step", text: "L-Net looks for the kidneys" });
    await segmentation.localize();
    await decide(list.config);
  },
  async decide({ config, number }) {
    if (segmentation && number === newest) await decide({ ...segmentation.list.config, ...config });
  },
  async save({ label }) {
    postMessage({ say: "file", blob: await writeNifti(label, ct) });
  },
};

/** Let the networks see what they have not seen yet, and decide. */
async function decide(config) {
  const isDone = await segmentation.predict(config, async (done, all) => {
    postMessage({ say: "window", done, all, where: where() });
    await new Promise((resolve) => setTimeout(resolve)); // for what the page says meanwhile
    return !isStopped;
  });
  if (!isDone) return postMessage({ say: "stopped" });
  const { label, tumor, ...more } = segmentation.decide(config);
  const files = { label: plainNifti(label, ct), tumor: plainNifti(segmentation.placement.mapFromGrid(tumor), ct) };
  postMessage({ say: "result", label, files, ...more, where: where() });
}

function where() {
  return [...networks.values()].some(({ card }) => card) ? "on the graphics card" : "on the processor";
}

async function fetched(name) {
  const answer = await fetch(new URL(name, NETWORKS));
  if (!answer.ok) throw new BadFile(`${name} is missing on this site (${answer.status}).`);
  return answer;
}

function sentenceOf(error) {
  if (error instanceof BadFile) return error.message;
  if (error instanceof RangeError || /memory|alloc/i.test(String(error)))
    return "There is too little memory for a CT of this size. Close other tabs, or use tunet predict.";
  if (/fetch|NetworkError|Load failed|no available backend/i.test(String(error)))
    return "A file of this site could not be loaded. Check the connection, and begin again.";
  return `Something went wrong that should not: ${error}`;
}
