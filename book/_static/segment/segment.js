// One CT, from its file to its label map: the whole method in a row, as tunet_lib/predict.py.

import { algorithm1 } from "./algorithm1.js";
import { cutPatch, holdsSome, lnetMask, localize, WindowMean, windowStarts } from "./networks.js";
import { voxelMm3, voxelSizes } from "./nifti.js";
import { Placement } from "./placement.js";
import { checkLabel } from "./plausible.js";
import { prepareScan } from "./prepare.js";
import { volumesMl } from "./volumes.js";

/** A CT, and what the networks have said of it so far. */
export class Segmentation {
  /**
   * `list` is networks.json, as tunet export writes it; `run` gives the maps of a network:
   * (entry of the list, image, shape) => Promise<Float32Array>.
   */
  constructor(ct, list, run) {
    this.ct = ct;
    this.list = list;
    this.run = run;
    this.placement = new Placement(ct, list.config);
    this.shape = this.placement.gridShape;
    const medians = new Set(list.networks.map(({ median }) => median));
    const prepared = prepareScan(ct, this.placement, list.config, medians);
    this.volumes = prepared.volumes;
    this.gridHu = prepared.gridHu;
    this.warnings = prepared.warnings;
    this.shift = prepared.shift;
    this.localizers = list.networks.filter(({ network }) => network === "lnet");
    this.voters = list.networks.filter(({ network }) => network === "tunet");
    this.starts = windowStarts(this.shape, list.config.patch_shape, list.config.patch_stride);
    this.means = this.voters.map(() => new WindowMean(this.shape, 2));
    this.done = new Set();
  }

  /** Let L-Net say where the kidneys are; once for a CT. */
  async localize() {
    const maps = [];
    for (const one of this.localizers) {
      const run = (image, shape) => this.run(one, image, shape);
      maps.push(await localize(run, this.volumes.get(one.median), this.shape, this.list.config));
    }
    this.lnetProb = maps.length ? mean(maps) : null;
  }

  /** The windows that a configuration needs, and that no TuNet has seen yet. */
  missing(config) {
    const mask = this.mask(config);
    return this.starts.filter((start) =>
      !this.done.has(start) && (!mask || holdsSome(mask, this.shape, start, config.patch_shape)));
  }

  /**
   * Let every TuNet see the windows that are missing. `onWindow` hears of each, is waited for, and ends
   * it by giving false; windows that are done stay done. Says whether it came to its end.
   */
  async predict(config, onWindow = () => {}) {
    const window = config.patch_shape;
    const starts = this.missing(config);
    const steps = starts.length * this.voters.length;
    let step = 0;
    for (const start of starts) {
      let goesOn = true;
      for (const [k, one] of this.voters.entries()) {
        const patch = cutPatch(this.volumes.get(one.median), this.shape, start, window);
        this.means[k].add(await this.run(one, patch, window), start, window);
        goesOn = await onWindow(++step, steps);
      }
      this.done.add(start); // seen by all
      if (goesOn === false) return step === steps;
    }
    return true;
  }

  /** L-Net's mask; null where it is empty, or there is no L-Net: then everywhere counts. */
  mask(config) {
    const mask = this.lnetProb && lnetMask(this.lnetProb, this.shape, config);
    return mask?.includes(1) ? mask : null;
  }

  /** Decide by Algorithm 1, on what the networks have said. */
  decide(config) {
    const mask = this.mask(config);
    const [whole, tumor] = [0, 1].map((channel) => mean(this.means.map((one) => one.mean(channel, mask))));
    const { shape, list: { paper } } = this;
    const onGrid = algorithm1(whole, tumor, mask, { shape, config, paper });
    const label = this.placement.labelFromGrid(onGrid);
    const lowest = Math.min(config.high_threshold, config.empty_low_threshold);
    const byRule = config.tumor_is_whole_if_none && onGrid.includes(2) && !tumor.some((prob) => prob >= lowest);
    const found = tumor.filter((_, k) => onGrid[k] === 2);
    const tumorProb = found.reduce((sum, prob) => sum + prob, 0) / found.length; // NaN of nothing
    const isSure = byRule || !(tumorProb < this.list.sure_prob);
    const doubts = checkLabel(label, this.ct.shape, this.placement.axes);
    if (this.lnetProb && !mask)
      doubts.unshift("L-Net found no kidney, so TuNet looked everywhere: what is marked may be anything.");
    return { label, tumor, doubts, byRule, tumorProb, isSure, ml: this.#volumes(label) };
  }

  #volumes(label) {
    const { axes, fileShape: shape } = this.placement;
    const { affine } = this.ct;
    return volumesMl(label, { shape, axes, sizesMm: voxelSizes(affine), voxelMl: voxelMm3(affine) / 1000 });
  }
}

function mean(maps) {
  return maps[0].map((_, k) => maps.reduce((sum, map) => sum + map[k], 0) / maps.length);
}
