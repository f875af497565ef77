// What L-Net and TuNet say of a whole volume: tunet_lib/localization.py and tunet_lib/windows.py.
//
// A network is a function: an image (Float32Array, z y x) and its shape, to a promise of maps, the
// channels of a voxel side by side. Which program runs it is not known here.

import { linearInterpolation } from "./placement.js";

/** The corners of the windows that cover a volume; the last of each axis ends at the border. */
export function windowStarts(shape, window, stride) {
  const [inZ, inY, inX] = shape.map((size, axis) => {
    const last = Math.max(0, size - window[axis]);
    const starts = [];
    for (let start = 0; start < last; start += stride[axis]) starts.push(start);
    return [...starts, last];
  });
  return inZ.flatMap((z) => inY.flatMap((y) => inX.map((x) => [z, y, x])));
}

/** Whether a window holds some voxel of a mask. */
export function holdsSome(mask, shape, start, window) {
  const ends = start.map((first, k) => Math.min(first + window[k], shape[k]));
  for (let z = start[0]; z < ends[0]; z++)
    for (let y = start[1]; y < ends[1]; y++) {
      const row = (z * shape[1] + y) * shape[2];
      if (mask.subarray(row + start[2], row + ends[2]).includes(1)) return true;
    }
  return false;
}

/** Copy a window of a volume; borders are repeated where it reaches beyond. */
export function cutPatch(volume, shape, start, window) {
  const patch = new Float32Array(window[0] * window[1] * window[2]);
  let place = 0;
  for (let z = 0; z < window[0]; z++)
    for (let y = 0; y < window[1]; y++) {
      const inZ = Math.min(start[0] + z, shape[0] - 1);
      const row = (inZ * shape[1] + Math.min(start[1] + y, shape[1] - 1)) * shape[2];
      for (let x = 0; x < window[2]; x++) patch[place++] = volume[row + Math.min(start[2] + x, shape[2] - 1)];
    }
  return patch;
}

/** The mean over windows of what a network says; windows may be added one after another. */
export class WindowMean {
  constructor(shape, channels) {
    this.shape = shape;
    this.channels = channels;
    const size = shape[0] * shape[1] * shape[2];
    this.total = new Float32Array(size * channels);
    this.count = new Uint16Array(size);
  }

  add(maps, start, window) {
    const [depth, height, width] = window.map((size, k) => Math.min(size, this.shape[k] - start[k]));
    for (let z = 0; z < depth; z++)
      for (let y = 0; y < height; y++) {
        let to = ((start[0] + z) * this.shape[1] + start[1] + y) * this.shape[2] + start[2];
        let from = (z * window[1] + y) * window[2] * this.channels;
        for (let x = 0; x < width; x++, to++) {
          this.count[to] += 1;
          for (let c = 0; c < this.channels; c++) this.total[to * this.channels + c] += maps[from++];
        }
      }
  }

  /** One channel's mean where a mask is set, and 0 elsewhere. */
  mean(channel, mask) {
    return Float32Array.from(this.count, (count, k) =>
      count && (!mask || mask[k]) ? this.total[k * this.channels + channel] / count : 0);
  }
}

/** The probability that L-Net gives each voxel of the grid: downsample, one pass, upsample. */
export async function localize(network, volume, shape, config) {
  const factor = config.grid_shape.map((size, k) => Math.floor(size / config.lnet_shape[k]));
  const coarseShape = shape.map((size, k) => Math.ceil(size / factor[k]));
  const coarse = blockMean(volume, shape, coarseShape, factor);
  const step = 2 ** (config.levels - 1);
  const window = coarseShape.map((size, k) => Math.max(config.lnet_shape[k], Math.ceil(size / step) * step));
  const mean = new WindowMean(coarseShape, 1);
  mean.add(await network(cutPatch(coarse, coarseShape, [0, 0, 0], window), window), [0, 0, 0], window);
  return enlarged(mean.mean(0), coarseShape, shape, factor);
}

/** L-Net's mask: what reaches the threshold, and all within the margin around it. */
export function lnetMask(prob, shape, config) {
  const mask = Uint8Array.from(prob, (value) => (value >= config.lnet_threshold ? 1 : 0));
  const margin = config.lnet_margin_mm;
  if (!margin) return mask;
  const spacing = config.grid_fov_mm.map((fov, k) => fov / config.grid_shape[k]);
  const [inZ, inY, inX] = spacing.map((mm) => {
    const reach = Math.floor(margin / mm);
    return Array.from({ length: 2 * reach + 1 }, (_, k) => k - reach);
  });
  const near = inZ.flatMap((z) => inY.flatMap((y) => inX.map((x) => [z, y, x])))
    .filter((step) => Math.hypot(...step.map((count, k) => count * spacing[k])) <= margin);
  const wide = new Uint8Array(mask.length);
  forEachVoxel(shape, (place, z, y, x) => {
    if (!mask[place]) return;
    for (const [dz, dy, dx] of near) {
      const [a, b, c] = [z + dz, y + dy, x + dx];
      if (a >= 0 && a < shape[0] && b >= 0 && b < shape[1] && c >= 0 && c < shape[2])
        wide[(a * shape[1] + b) * shape[2] + c] = 1;
    }
  });
  return wide;
}

export function forEachVoxel([depth, height, width], visit) {
  let place = 0;
  for (let z = 0; z < depth; z++)
    for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) visit(place++, z, y, x);
}

function blockMean(volume, shape, coarseShape, factor) {
  const coarse = new Float32Array(coarseShape[0] * coarseShape[1] * coarseShape[2]);
  const size = factor[0] * factor[1] * factor[2];
  forEachVoxel(coarseShape, (place, z, y, x) => {
    const block = cutPatch(volume, shape, [z * factor[0], y * factor[1], x * factor[2]], factor);
    coarse[place] = block.reduce((sum, value) => sum + value, 0) / size;
  });
  return coarse;
}

/** Interpolate linearly between the centers of larger voxels. */
function enlarged(coarse, coarseShape, shape, factor) {
  const [inZ, inY, inX] = coarseShape.map((count, k) =>
    linearInterpolation({ count, mm: factor[k] }, { count: count * factor[k], mm: 1 }));
  const fine = new Float32Array(shape[0] * shape[1] * shape[2]);
  forEachVoxel(shape, (place, z, y, x) => {
    let sum = 0;
    inZ[z].weights.forEach((a, i) => inY[y].weights.forEach((b, j) => inX[x].weights.forEach((c, k) => {
      const row = (inZ[z].first + i) * coarseShape[1] + inY[y].first + j;
      sum += a * b * c * coarse[row * coarseShape[2] + inX[x].first + k];
    })));
    fine[place] = sum;
  });
  return fine;
}
