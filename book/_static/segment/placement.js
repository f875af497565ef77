// Where a CT lies on the grid, and the ways there and back: tunet_lib/placement.py.
//
// Resampling acts on one axis at a time, so it is one matrix per axis. A file's axes may run in
// any of 48 ways; each is given the matrix of the patient's axis that it runs along.

import { BadFile, voxelSizes } from "./nifti.js";

const TIE = 1e-6; // in voxels
const MOST_VOXELS = 2 ** 28; // of a grid
const TILT_DEG = 2;
export const PADDING_HU = -1024; // scanners write nothing below, but padding

/** Along which of the patient's axes (0, 1, 2: feet, back, left) a file's axes run, and which way. */
export function axesOf(affine, name = "The file") {
  const sizes = voxelSizes(affine);
  const axes = [0, 1, 2].map((column) => {
    const towards = [2, 1, 0].map((row) => -affine[row][column] / sizes[column]); // feet, back, left
    const axis = [0, 1, 2].reduce((best, k) => (Math.abs(towards[k]) > Math.abs(towards[best]) ? k : best));
    return { axis, isForward: towards[axis] > 0, cosine: Math.abs(towards[axis]) };
  });
  const degrees = Math.max(...axes.map(({ cosine }) => (Math.acos(Math.min(cosine, 1)) * 180) / Math.PI));
  if (degrees > TILT_DEG || new Set(axes.map(({ axis }) => axis)).size < 3)
    throw new BadFile(
      `${name}: its voxels lie askew by ${degrees.toFixed(0)} degrees (tilted gantry, or oblique). ` +
        "This page takes upright CTs only; tunet predict takes all.");
  return axes;
}

export class Placement {
  /** Of a CT as readNifti gives it, on the grid of a configuration. */
  constructor(ct, config) {
    this.axes = axesOf(ct.affine, ct.name);
    this.fileShape = ct.shape;
    this.gridSpacing = config.grid_fov_mm.map((fov, k) => fov / config.grid_shape[k]);
    const sizes = voxelSizes(ct.affine).map((mm) => Math.round((mm + 1e-7) * 1e6) / 1e6);
    this.scan = [];
    this.axes.forEach(({ axis }, k) => { this.scan[axis] = { count: ct.shape[k], mm: sizes[k] }; });
    // Where the CT is larger than the grid, the grid grows: nothing is cropped.
    this.gridShape = config.grid_shape.map((size, k) => {
      const needed = Math.ceil((this.scan[k].count * this.scan[k].mm) / this.gridSpacing[k] - TIE);
      const step = Math.floor(size / config.lnet_shape[k]);
      return needed <= size ? size : Math.ceil(needed / step) * step;
    });
    if (this.gridShape.reduce((a, b) => a * b) > MOST_VOXELS)
      throw new BadFile(`${ct.name} needs a grid of ${this.gridShape.join(" x ")} voxels. Correct its voxel size.`);
    this.grid = this.gridShape.map((count, k) => ({ count, mm: this.gridSpacing[k] }));
    this.ontoGrid = this.scan.map((scan, k) => {
      const mm = config.resample_spacing_mm[k];
      const samples = { count: Math.max(1, Math.ceil((scan.count * scan.mm) / mm - TIE)), mm };
      return product(boxAverage(samples, this.grid[k]), linearInterpolation(scan, samples));
    });
    this.ontoScan = this.scan.map((scan, k) => linearInterpolation(this.grid[k], scan));
  }

  /** The part of each grid voxel that the CT covers, 0 to 1. */
  coverage() {
    const sums = this.ontoGrid.map((matrix) =>
      matrix.map((row) => Math.min(row.weights.reduce((sum, weight) => sum + weight, 0), 1)));
    const [depth, height, width] = this.gridShape;
    const covered = new Float32Array(depth * height * width);
    let place = 0;
    for (let z = 0; z < depth; z++)
      for (let y = 0; y < height; y++)
        for (let x = 0; x < width; x++) covered[place++] = sums[0][z] * sums[1][y] * sums[2][x];
    return covered;
  }

  /** Resample a CT to the grid: HU, and NaN never; where there is no CT, as much less as is missing. */
  toGrid(voxels) {
    const [inFast, inMiddle, inSlow] = this.axes.map(({ axis, isForward }, k) =>
      isForward ? this.ontoGrid[axis] : flipped(this.ontoGrid[axis], this.fileShape[k]));
    const [width, height, depth] = this.fileShape;
    const total = new Float32Array(inSlow.length * inMiddle.length * inFast.length);
    const size = inMiddle.length * inFast.length;
    const half = new Float32Array(height * inFast.length);
    const plane = new Float32Array(size);
    const toSlow = transposed(inSlow, depth);
    for (let k = 0; k < depth; k++) {
      const start = k * height * width;
      for (let row = 0; row < height; row++)
        inFast.forEach(({ first, weights }, column) => {
          let sum = 0;
          const from = start + row * width + first;
          for (let n = 0; n < weights.length; n++) sum += weights[n] * Math.max(voxels[from + n], PADDING_HU);
          half[row * inFast.length + column] = sum;
        });
      combineRows(inMiddle, half, inFast.length, plane);
      for (const [grid, weight] of toSlow[k])
        for (let n = 0; n < size; n++) total[grid * size + n] += weight * plane[n];
    }
    return this.#turned(total);
  }

  /** Bring a label map from the grid to the CT's own voxels, in the order of its file. */
  labelFromGrid(label) {
    const out = new Uint8Array(this.fileShape.reduce((a, b) => a * b, 1));
    for (const value of [1, 2]) {
      const mask = Float32Array.from(label, (one) => (one >= value ? 1 : 0));
      this.#visit(mask, (place, share) => { if (share >= 0.5 - TIE) out[place] = value; });
    }
    return out;
  }

  /** Bring a probability map to the CT's own voxels, in 255 steps. */
  mapFromGrid(prob) {
    const out = new Uint8Array(this.fileShape.reduce((a, b) => a * b, 1));
    this.#visit(prob, (place, value) => { out[place] = Math.round(255 * value); });
    return out;
  }

  /** Interpolate a map at the CT's own voxels, but for planes in which all is 0. */
  #visit(map, see) {
    const [inFast, inMiddle, inSlow] = this.axes.map(({ axis, isForward }) =>
      isForward ? this.ontoScan[axis] : this.ontoScan[axis].toReversed());
    const width = this.gridShape[this.axes[0].axis];
    const height = this.gridShape[this.axes[1].axis];
    const volume = this.#inFileOrder(map);
    const plane = new Float32Array(height * width);
    const half = new Float32Array(inMiddle.length * width);
    inSlow.forEach((slow, k) => {
      combineRows([slow], volume, plane.length, plane);
      if (!plane.some((value) => value > 0)) return;
      combineRows(inMiddle, plane, width, half);
      for (let row = 0; row < inMiddle.length; row++)
        inFast.forEach(({ first, weights }, column) => {
          const from = row * width + first;
          let value = 0;
          for (let n = 0; n < weights.length; n++) value += weights[n] * half[from + n];
          see((k * inMiddle.length + row) * inFast.length + column, value);
        });
    });
  }

  /** From the order of the file's axes to (z, y, x). */
  #turned(volume) {
    return permuted(volume, this.gridShape, this.#steps(), (place, k) => [place, k]);
  }

  #inFileOrder(volume) {
    return permuted(volume, this.gridShape, this.#steps(), (place, k) => [k, place]);
  }

  /** How far apart neighbors along z, y and x lie where the file's order is kept. */
  #steps() {
    const steps = [];
    let step = 1;
    for (const { axis } of this.axes) {
      steps[axis] = step;
      step *= this.gridShape[axis];
    }
    return steps;
  }
}

function permuted(volume, [depth, height, width], [inZ, inY, inX], fromTo) {
  const out = new volume.constructor(volume.length);
  let k = 0;
  for (let z = 0; z < depth; z++)
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++) {
        const [from, to] = fromTo(z * inZ + y * inY + x * inX, k++);
        out[to] = volume[from];
      }
  return out;
}

// A matrix is a list of rows; a row has its first column that is not 0, and the weights from there.

/** Interpolate from voxels to voxels about one middle, constant beyond the outermost centers. */
export function linearInterpolation(source, target) {
  return rows(target.count, (k) => {
    const mm = (k - (target.count - 1) / 2) * target.mm;
    const at = Math.min(Math.max(mm / source.mm + (source.count - 1) / 2, 0), source.count - 1);
    const first = Math.min(Math.floor(at), Math.max(source.count - 2, 0));
    return source.count === 1 ? { first, weights: [1] } : { first, weights: [1 - (at - first), at - first] };
  });
}

/** Average over each larger voxel: the share of it that each smaller voxel takes up. */
export function boxAverage(source, target) {
  return rows(target.count, (k) => {
    const start = (k - target.count / 2) * target.mm;
    const shares = [];
    let first = 0;
    for (let n = 0; n < source.count; n++) {
      const from = (n - source.count / 2) * source.mm;
      const share = (Math.min(start + target.mm, from + source.mm) - Math.max(start, from)) / target.mm;
      if (share > 0) {
        if (!shares.length) first = n;
        shares.push(share);
      }
    }
    return { first, weights: shares };
  });
}

function product(left, right) {
  return left.map((row) => {
    const used = row.weights.map((weight, k) => [weight, right[row.first + k]]);
    if (!used.length) return { first: 0, weights: new Float32Array(0) };
    const first = Math.min(...used.map(([, other]) => other.first));
    const last = Math.max(...used.map(([, other]) => other.first + other.weights.length));
    const weights = new Float64Array(last - first);
    for (const [weight, other] of used)
      other.weights.forEach((value, k) => { weights[other.first - first + k] += weight * value; });
    return { first, weights: Float32Array.from(weights) };
  });
}

function flipped(matrix, count) {
  return matrix.map(({ first, weights }) => ({ first: count - first - weights.length, weights: weights.toReversed() }));
}

function transposed(matrix, count) {
  const columns = rows(count, () => []);
  matrix.forEach(({ first, weights }, row) =>
    weights.forEach((weight, k) => { if (weight) columns[first + k].push([row, weight]); }));
  return columns;
}

/** Apply a matrix to an image whose rows have `width` values. */
function combineRows(matrix, image, width, out) {
  matrix.forEach(({ first, weights }, row) => {
    out.fill(0, row * width, (row + 1) * width);
    for (let n = 0; n < weights.length; n++)
      if (weights[n])
        for (let k = 0; k < width; k++) out[row * width + k] += weights[n] * image[(first + n) * width + k];
  });
}

function rows(count, make) {
  return Array.from({ length: count }, (_, k) => make(k));
}
