// One series of DICOM as a CT, by dcm2niix, in the worker. What it makes is checked against what
// the headers say, for it mends in silence what it takes for faults.

import makeDcm2niix from "../vendor/dcm2niix/dcm2niix.jpeg.js";
import { isWhole } from "./coded.js";
import { BadFile, readNifti } from "./nifti.js";

const OFF_VOXELS = 0.05;
const LOWEST_HU = -1024; // from here to the highest scanners write, unless metal is on their scale
const HIGHEST_HU = 3071;
const LOST =
  "The slices cannot be read: one is cut short or damaged, or compressed in a way that this page " +
  "does not know. tunet predict may take them.";
const APART =
  "The slices come apart into several volumes, as with a gantry that was tilted a little, or with headers " +
  "that differ from slice to slice. tunet predict may take them.";
const MOVED =
  "The slices come out elsewhere than their headers say, as with a gantry that was tilted a little, or " +
  "with slices that all have one number. tunet predict may take them.";

/** Read a stack, as findStack gives it without what lies around its files; gives what readNifti does. */
export async function readStack({ files, pixels, shape, affine, gaps }) {
  const silent = () => {};
  const { FS, callMain } = await makeDcm2niix({ print: silent, printErr: silent });
  FS.mkdir("/in");
  FS.mkdir("/out");
  for (const [k, file] of files.entries()) {
    const bytes = new Uint8Array(await file.arrayBuffer());
    if (pixels[k].isCoded && !isWhole(bytes, pixels[k], shape[1], shape[0]))
      throw new BadFile(`${file.name}: its pixels are damaged, or of another number than its header says.`);
    FS.createDataFile("/in", `${k}`, bytes, true, true);
  }
  // No note of the patient beside it, nothing packed, all slices in one, no scale of Philips' own.
  callMain(["-b", "n", "-z", "n", "-m", "y", "-p", "n", "-f", "ct", "-o", "/out", "/in"]);
  const made = FS.readdir("/out").filter((name) => name.endsWith(".nii"));
  if (made.length !== 1) throw new BadFile(made.length ? APART : LOST);
  const bytes = FS.readFile(`/out/${made[0]}`);
  spaceEvenly(bytes, affine, gaps);
  const ct = await readNifti(new Blob([bytes]), "The series");
  const mm = Math.min(...[0, 1, 2].map((k) => Math.hypot(...affine.map((row) => row[k]))));
  const isSame = corners(affine, shape).every((corner) =>
    corners(ct.affine, ct.shape).some((other) => Math.hypot(...corner.map((at, k) => at - other[k])) < OFF_VOXELS * mm));
  // In the order of the headers: each slice has its own padding.
  const isInOrder = ct.affine.every((row, k) => Math.abs(row[2] - affine[k][2]) < OFF_VOXELS * mm);
  if (!isSame || !isInOrder || ct.shape.some((count, k) => count !== shape[k])) throw new BadFile(MOVED);
  return { ...ct, voxels: withoutPadding(ct, pixels) };
}

/** Make air of pixels without a value, such as outside of a round field of view: tunet_lib/dicom_slice.py. */
function withoutPadding({ voxels, shape }, pixels) {
  if (pixels.every(({ padding }) => padding === null)) return voxels;
  const hu = Float32Array.from(voxels); // for some types hold nothing below 0
  const count = shape[0] * shape[1];
  pixels.forEach(({ slope, intercept, padding, size }, k) => {
    if (padding === null) return;
    for (let at = k * count; at < (k + 1) * count; at++) {
      if (hu[at] >= LOWEST_HU && hu[at] <= HIGHEST_HU) continue; // some name a number that tissue has
      const stored = Math.round((hu[at] - intercept) / slope);
      // Some write a number below 0 as if it had no sign.
      if ((stored - padding) % 2 ** (8 * size) === 0) hu[at] = LOWEST_HU;
    }
  });
  return hu;
}

/**
 * Correct the distance of slices in a NIfTI of dcm2niix. It takes that of two slices for all, which of
 * positions that were rounded is off by a little, and after hundreds of slices by a lot.
 */
function spaceEvenly(bytes, affine, gaps) {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const rows = [280, 296, 312].map((at) => at + 8); // of sform, the third column
  const theirs = Math.hypot(...rows.map((at) => view.getFloat32(at, true)));
  const mine = Math.hypot(...affine.map((row) => row[2]));
  if (theirs < Math.min(...gaps) - 1e-3 || theirs > Math.max(...gaps) + 1e-3) return; // it is another matter
  for (const at of rows) view.setFloat32(at, view.getFloat32(at, true) * mine / theirs, true);
  view.setFloat32(88, mine, true); // pixdim
}

/** The centers of the eight outermost voxels, in mm. */
function corners(affine, shape) {
  return [0, 1, 2, 3, 4, 5, 6, 7].map((which) => {
    const at = shape.map((count, k) => ((which >> k) & 1) * (count - 1));
    return affine.map((row) => row[3] + at.reduce((sum, index, k) => sum + index * row[k], 0));
  });
}
