// The programs that run a network: onnxruntime on the processor, and on the graphics card (WebGPU)
// where that says the same, sooner. What comes of it is a function, as networks.js wants it.

import * as onProcessor from "../vendor/onnxruntime/ort.wasm.bundle.min.mjs";

const FOLDER = new URL("../vendor/onnxruntime/", import.meta.url);
// Between probabilities: a step of the sliders. wasm itself is off by 0.003 from exact sums over a window.
const TOLERANCE = 0.01;
// How long a card's answer may take, when the processor took so long; the first one compiles shaders.
const longest = (ms) => 3 * ms + 5000;
const OPENING_MS = 20_000; // with the program's way through the net

onProcessor.env.wasm.wasmPaths = { wasm: new URL("ort-wasm-simd-threaded.wasm", FOLDER).href };
onProcessor.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, 4) : 1;

/** Open a network on the processor. */
export function openOnProcessor(graph) {
  return open(onProcessor, graph, { executionProviders: ["wasm"] });
}

/**
 * The graphics card, on which networks can be opened; null where the browser offers none. Its program
 * is loaded only where there is one. A card that is software would be slower than the processor.
 */
export async function findCard({ evenSoftware = false } = {}) {
  try {
    const adapter = "Suspending" in WebAssembly && (await navigator.gpu?.requestAdapter());
    if (!adapter || (adapter.info.isFallbackAdapter && !evenSoftware)) return null;
    const onCard = await import(new URL("ort.jspi.bundle.min.mjs", FOLDER));
    onCard.env.wasm.wasmPaths = { wasm: new URL("ort-wasm-simd-threaded.jspi.wasm", FOLDER).href };
    onCard.env.wasm.numThreads = 1;
    onCard.env.logLevel = "fatal"; // silent: where the card fails, the processor goes on
    return { open: (graph) => inTime(openOnCard(onCard, graph), OPENING_MS).catch(() => null) };
  } catch {
    return null;
  }
}

async function openOnCard(onCard, graph) {
  const run = await open(onCard, graph, { executionProviders: ["webgpu"], logSeverityLevel: 4 });
  const device = await onCard.env.webgpu.device;
  let trouble = null; // too little memory, for instance: what the card then says is an older answer
  device.addEventListener("uncapturederror", ({ error }) => { trouble = error; });
  return {
    async run(image, shape) {
      const maps = await run(image, shape);
      if (trouble) throw trouble;
      return maps;
    },
    close: () => device.destroy(),
  };
}

async function open(program, graph, options) {
  const session = await program.InferenceSession.create(graph, options);
  return async (image, shape) => {
    const input = new program.Tensor("float32", image, [1, ...shape, 1]);
    const { probability } = await session.run({ image: input });
    return probability.data;
  };
}

/** A network on the processor, and on the card from when its first window has come out the same there, sooner. */
export class Network {
  /** `onProcessor` is a function, `card` has `run`, another such, and `close`; or it is null. */
  constructor(onProcessor, card = null) {
    this.onProcessor = onProcessor;
    this.untried = card;
    this.card = null;
  }

  async run(image, shape) {
    if (this.untried) return this.#try(image, shape);
    if (this.card)
      try {
        return await inTime(this.card.run(image, shape), this.longestMs);
      } catch { // lost, out of memory, or stuck
        this.card.close();
        this.card = null;
      }
    return this.onProcessor(image, shape);
  }

  /** Let both see a window; the processor's answer is the one that counts. */
  async #try(image, shape) {
    const card = this.untried;
    this.untried = null;
    const [maps, ms] = await timed(() => this.onProcessor(image, shape));
    this.longestMs = longest(ms);
    try {
      const theirs = await inTime(card.run(image, shape), this.longestMs);
      const [, theirMs] = await timed(() => inTime(card.run(image, shape), ms));
      if (theirMs < ms && maps.every((prob, k) => Math.abs(prob - theirs[k]) <= TOLERANCE)) this.card = card;
    } catch { /* it is not kept */ }
    if (!this.card) card.close();
    return maps;
  }
}

async function timed(work) {
  const began = performance.now();
  const result = await work();
  return [result, performance.now() - began];
}

function inTime(promise, ms) {
  return Promise.race([promise, new Promise((_, reject) => { setTimeout(reject, ms, new Error("too late")); })]);
}
