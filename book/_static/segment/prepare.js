// From a CT to the normalized volumes that the networks see: tunet_lib/preprocess.py. Volumes are
// Float32Arrays in the order (z, y, x).

import { BadFile } from "./nifti.js";
import { believe, checkExtent, checkValues } from "./plausible.js";

/** Give for each of `medians` (filtered or not) the volume; sentences of doubt; what was subtracted. */
export function prepareScan(ct, placement, config, medians) {
  const coverage = placement.coverage();
  const inside = coverage.map((part) => (part >= 0.5 ? 1 : 0));
  if (!inside.includes(1)) throw new BadFile(`${ct.name} is thinner than one voxel of the grid. Take a CT of more slices.`);
  const warnings = [...ct.warnings, ...checkExtent(placement), ...checkValues(ct)];
  const gridHu = placement.toGrid(ct.voxels);
  for (let k = 0; k < gridHu.length; k++) gridHu[k] += config.pad_hu * (1 - coverage[k]);
  const { doubts, shift } = believe(gridHu, coverage, placement, ct.name);
  warnings.push(...doubts);
  const volumes = new Map();
  for (const median of medians) {
    const values = median ? medianFilter(gridHu, placement.gridShape, config.median_size) : gridHu.slice();
    volumes.set(median, normalized(clipped(values, config.clip_hu), inside));
  }
  return { volumes, warnings, gridHu, shift };
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
  const root = Math.sqrt(squares / count);
  const sd = root > 1e-3 ? root : 1; // of one value everywhere it is 0, but for rounding
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
