// From a CT to the normalized volumes that the networks see: tunet_lib/preprocess.py and, for what
// is believed of a CT, tunet_lib/plausible.py. Volumes are Float32Arrays in the order (z, y, x).

import { BadFile } from "./nifti.js";

const SHIFT_HU = 1024;
const BODY_HU = -300;
const NO_AIR_HU = -200;
const TISSUE_HU = [-120, 150]; // where the typical voxel of a body lies
const SHORT_MM = 80;

/** Give for each of `medians` (filtered or not) the volume, and sentences of doubt. */
export function prepareScan(ct, placement, config, medians) {
  const coverage = placement.coverage();
  const inside = coverage.map((part) => (part >= 0.5 ? 1 : 0));
  if (!inside.includes(1)) throw new BadFile(`${ct.name} is thinner than one voxel of the grid. Take a CT of more slices.`);
  const gridHu = placement.toGrid(ct.voxels);
  for (let k = 0; k < gridHu.length; k++) gridHu[k] += config.pad_hu * (1 - coverage[k]);
  const warnings = [...ct.warnings, ...believe(gridHu, coverage, placement, ct.name)];
  const volumes = new Map();
  for (const median of medians) {
    const values = median ? medianFilter(gridHu, placement.gridShape, config.median_size) : gridHu.slice();
    volumes.set(median, normalized(clipped(values, config.clip_hu), inside));
  }
  return { volumes, warnings, gridHu };
}

function clipped(values, window) {
  return window ? values.map((hu) => Math.min(Math.max(hu, window[0]), window[1])) : values;
}

/** Scale to zero mean and unit variance over the voxels inside. */
export function normalized(values, inside) {
  let count = 0;
  let sum = 0;
  for (let k = 0; k < values.length; k++) if (inside[k]) { count += 1; sum += values[k]; }
  const mean = sum / count;
  let squares = 0;
  for (let k = 0; k < values.length; k++) if (inside[k]) squares += (values[k] - mean) ** 2;
  const sd = Math.sqrt(squares / count) || 1;
  return values.map((value) => (value - mean) / sd);
}

/** Give each voxel the median of its neighborhood; borders are repeated. */
export function medianFilter(volume, [depth, height, width], size) {
  const reach = (size - 1) / 2;
  const out = new Float32Array(volume.length);
  const values = new Float32Array(size ** 3);
  const within = (k, count) => Math.min(Math.max(k, 0), count - 1);
  let place = 0;
  for (let z = 0; z < depth; z++)
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++) {
        let n = 0;
        for (let dz = -reach; dz <= reach; dz++)
          for (let dy = -reach; dy <= reach; dy++) {
            const row = (within(z + dz, depth) * height + within(y + dy, height)) * width;
            for (let dx = -reach; dx <= reach; dx++) values[n++] = volume[row + within(x + dx, width)];
          }
        out[place++] = values.sort()[(values.length - 1) / 2];
      }
  return out;
}

/** Check that values are HU; those that are HU + 1024 are mended in place. */
function believe(gridHu, coverage, placement, name) {
  const own = gridHu.filter((_, k) => coverage[k] > 0.999).sort();
  if (!own.length) return [];
  const [low, high] = [own[0], own[own.length - 1]];
  const shown = `values from ${low.toFixed(0)} to ${high.toFixed(0)}`;
  const shortest = Math.min(...placement.scan.map(({ count, mm }) => count * mm));
  if (high - low < 1e-3) return ["It has one value everywhere; there is nothing to be found."];
  if (high - low < 20 || (low > -0.5 && high < 255.5)) {
    const what = `holds no HU, but ${shown}, as pictures have`;
    if (shortest > SHORT_MM) throw new BadFile(`${name} ${what}. Export it in HU.`);
    return [`It ${what}.`];
  }
  if (isShifted(own)) {
    for (let k = 0; k < gridHu.length; k++) gridHu[k] -= SHIFT_HU * coverage[k];
    return [`It has ${shown}: HU + ${SHIFT_HU}; ${SHIFT_HU} is subtracted.`];
  }
  if (low > NO_AIR_HU) return [`It has ${shown}, and so no air. Make sure that they are HU.`];
  const body = own.filter((hu) => hu > BODY_HU);
  const typical = body.length ? middle(body) : low;
  if (typical < TISSUE_HU[0] || typical > TISSUE_HU[1])
    return [`It has ${shown}, and a body of typically ${typical.toFixed(0)}; about 40 HU are expected.`];
  return [];
}

/** Nothing where air would be, and tissue about 1024. */
function isShifted(own) {
  const share = (holds) => own.filter(holds).length / own.length;
  if (share((hu) => hu < BODY_HU) > 0.5 || share((hu) => hu > -900 && hu < BODY_HU) > 0.001) return false;
  const body = own.filter((hu) => hu > SHIFT_HU + BODY_HU);
  const typical = middle(body) - SHIFT_HU;
  return body.length > 0.05 * own.length && typical >= TISSUE_HU[0] && typical <= TISSUE_HU[1];
}

function middle(sorted) {
  const half = sorted.length / 2;
  return (sorted[Math.ceil(half) - 1] + sorted[Math.floor(half)]) / 2;
}
