// The CT series that a heap of DICOM files holds, and the order of their slices, by their headers:
// tunet_lib/dicom.py and tunet_lib/dicom_stack.py. dicom-parser reads a header.

import { BadFile } from "./nifti.js";
import { axesOf } from "./placement.js";

const HEADER_BYTES = 2 ** 16; // in which most headers end; of the others all is read
const PIXELS = "x7fe00010";
const MULTI_FRAME = ["1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"]; // enhanced CT, legacy
const DEFLATED = "1.2.840.10008.1.2.1.99";
const SAME_MM = 0.01; // slices nearer to each other than this lie in one place
const OUT_OF_PLACE = 0.1; // of the distance between slices

/** Say whether a file is DICOM, by its content. */
export async function isDicom(file) {
  return (await file.slice(128, 132).text()) === "DICM";
}

/**
 * Sort files into series of CT slices, by series number. Gives them, each with `uid`, `text` and
 * `slices`, and of how many files were left out for which reason.
 */
export async function findSeries(files) {
  const byUid = new Map();
  const leftOut = new Map();
  const seen = new Set();
  for (const file of files) {
    if (!(await isDicom(file)) || /^DICOMDIR$/i.test(file.name)) continue;
    const header = await headerOf(file);
    let reason = noSlice(header, file.name);
    const slice = reason ? null : sliceOf(header, file);
    // The same instance at another place is none: some tools give all one number.
    const key = slice && [slice.uid || file.name, ...slice.position].join();
    if (seen.has(key)) reason = "slice that another file holds as well";
    if (reason) {
      leftOut.set(reason, (leftOut.get(reason) ?? 0) + 1);
      continue;
    }
    seen.add(key);
    const uid = header.string("x0020000e");
    if (!byUid.has(uid))
      byUid.set(uid, {
        uid, number: header.intString("x00200011") || 0, description: header.string("x0008103e"), slices: [],
      });
    byUid.get(uid).slices.push(slice);
  }
  const found = [...byUid.values()].sort((a, b) => a.number - b.number || (a.uid < b.uid ? -1 : 1));
  for (const one of found) {
    const [{ columns, rows }] = one.slices;
    one.text = `${one.slices.length} slices of ${columns}x${rows}, ${one.description || "no description"}`;
  }
  return { series: found, leftOut: [...leftOut].map(([reason, count]) => `${count} of ${reason}`).join(", ") };
}

/**
 * Put the slices of a series in order. Gives them, with their shape and affine (to RAS+ mm), and
 * refuses what is no whole, upright stack.
 */
export function findStack({ slices }) {
  const [one] = slices;
  if (slices.length < 2)
    throw new BadFile(`${one.name} is a single slice. Drop or choose the folder that holds its series.`);
  for (const each of slices) {
    const what = each.rows !== one.rows || each.columns !== one.columns ? "size"
      : each.axes.flat().some((mm, k) => Math.abs(mm - one.axes.flat()[k]) > 1e-3) ? "orientation or pixel spacing" : "";
    if (what) throw new BadFile(`${each.name} and ${one.name} are of one series and differ in ${what}.`);
  }
  const [right, down] = one.axes;
  const cross = [0, 1, 2].map((k) => right[(k + 1) % 3] * down[(k + 2) % 3] - right[(k + 2) % 3] * down[(k + 1) % 3]);
  const normal = cross.map((value) => value / Math.hypot(...cross));
  const height = ({ position }) => position.reduce((sum, mm, k) => sum + mm * normal[k], 0);
  const sorted = slices.toSorted((a, b) => height(a) - height(b));
  checkHeights(sorted, sorted.map(height));
  const [first, last] = [sorted[0], sorted.at(-1)].map(({ position }) => position);
  const step = first.map((mm, k) => (last[k] - mm) / (sorted.length - 1));
  sorted.forEach((each, index) => {
    const off = Math.hypot(...each.position.map((mm, k) => mm - first[k] - index * step[k]));
    if (off > OUT_OF_PLACE * Math.hypot(...step))
      throw new BadFile(`The slices are unevenly spaced: ${each.name} lies ${off.toFixed(2)} mm off its place.`);
  });
  const affine = [0, 1, 2].map((k) => [right, down, step, first].map((mm) => (k < 2 ? -mm[k] : mm[k])));
  axesOf(affine, "The series"); // refuses what lies askew
  return { slices: sorted, affine, shape: [one.columns, one.rows, sorted.length] };
}

function checkHeights(slices, heights) {
  const gaps = heights.slice(1).map((mm, k) => mm - heights[k]);
  const usual = gaps.toSorted((a, b) => a - b)[Math.floor(gaps.length / 2)];
  gaps.forEach((gap, k) => {
    const pair = `${slices[k].name} and ${slices[k + 1].name}`;
    if (gap < SAME_MM) throw new BadFile(`Slices are doubled: ${pair} lie in one place. Keep one of each.`);
    if (gap > 1.5 * usual)
      throw new BadFile(
        `Slices are missing between ${pair} (${heights[k].toFixed(1)} to ${heights[k + 1].toFixed(1)} mm). ` +
          "Export the series again.");
  });
}

async function headerOf(file) {
  const parse = async (part) =>
    window.dicomParser.parseDicom(new Uint8Array(await part.arrayBuffer()), { untilTag: PIXELS });
  let header;
  try {
    header = await parse(file.slice(0, HEADER_BYTES)).catch(() => parse(file));
  } catch (error) {
    throw new BadFile(
      `${file.name}: its DICOM header is damaged, or compressed in a way that this page does not know. ` +
        "tunet predict may take it.");
  }
  header.numbers = (tag) => (header.string(tag) ?? "").split("\\").filter(Boolean).map(Number);
  return header;
}

/** Say why a file is no slice of a CT; empty if it is one. Throws where its values would be read wrong. */
function noSlice(header, name) {
  const modality = header.string("x00080060");
  if (modality !== "CT") return `modality ${modality || "unknown"}`;
  if ((header.string("x00080008") ?? "").includes("LOCALIZER")) return "localizer";
  if ((header.uint16("x00280002") ?? 1) !== 1) return "color image";
  if (MULTI_FRAME.includes(header.string("x00080016")))
    throw new BadFile(`${name} holds many frames in one file (enhanced CT); tunet predict takes it.`);
  if (header.string("x00280004") === "MONOCHROME1")
    throw new BadFile(`${name}: its values are inverted (MONOCHROME1), and so no HU.`);
  return header.numbers("x00200032").length && header.numbers("x00200037").length ? "" : "image without a position";
}

function sliceOf(header, file) {
  const [down, right] = header.numbers("x00280030");
  const directions = header.numbers("x00200037");
  const slice = {
    file,
    name: file.name,
    uid: header.string("x00080018"),
    rows: header.uint16("x00280010"),
    columns: header.uint16("x00280011"),
    position: header.numbers("x00200032"),
    axes: [directions.slice(0, 3).map((value) => value * right), directions.slice(3).map((value) => value * down)],
  };
  const numbers = [slice.rows, slice.columns, ...slice.position, ...slice.axes.flat()];
  if (numbers.length !== 11 || !numbers.every(Number.isFinite) || !header.string("x0020000e"))
    throw new BadFile(`${file.name}: its DICOM header is damaged, or lacks what says where the slice lies.`);
  return slice;
}
