// The CT series that a heap of DICOM files holds, and the order of their slices, by their headers:
// tunet_lib/dicom.py and tunet_lib/dicom_stack.py. dicom-parser reads a header.

import { BadFile } from "./nifti.js";
import { axesOf } from "./placement.js";

// The first element of a file without preamble, of group 2 or 8 (tunet_lib/dicom.py).
const BARE = [[2, [0, 1, 2]], [8, [0, 1, 5, 8, 0x12, 0x16]]];
const HEADER_BYTES = 2 ** 16; // in which most headers end; of the others all is read
const PIXELS = "x7fe00010";
const MULTI_FRAME = ["1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"]; // enhanced CT, legacy
const SAME_MM = 0.01; // slices nearer to each other than this lie in one place
const OUT_OF_PLACE = 0.1; // of the distance between slices
const DIRECTION = 0.01; // how far two directions may be off length 1 and right angles, by rounding

/** Say whether a file is DICOM, by its content. */
export async function isDicom(file) {
  return (await file.slice(128, 132).text()) === "DICM" || isBare(file);
}

async function isBare(file) {
  const [group, none, element, zero] = new Uint8Array(await file.slice(0, 4).arrayBuffer());
  return !none && !zero && BARE.some(([one, elements]) => one === group && elements.includes(element));
}

/**
 * Sort files into series of CT slices, by series number. Gives them, each with `uid`, `text`, `slices`
 * and what its `fault` is, and of how many files were left out for which reason.
 */
export async function findSeries(files) {
  const byUid = new Map();
  const leftOut = new Map();
  const seen = new Set();
  const leave = (reason, count = 1) => leftOut.set(reason, (leftOut.get(reason) ?? 0) + count);
  for (const file of files) {
    if (!(await isDicom(file)) || /^DICOMDIR$/i.test(file.name)) continue;
    const header = await headerOf(file);
    const reason = noSlice(header);
    if (reason) {
      leave(reason);
      continue;
    }
    const uid = header.string("x0020000e");
    if (!uid) throw new BadFile(`${file.name}: its DICOM header lacks SeriesInstanceUID.`);
    if (!byUid.has(uid))
      byUid.set(uid, {
        uid, number: header.intString("x00200011") || 0, description: textOf(header, "x0008103e"), slices: [], fault: "",
      });
    const series = byUid.get(uid);
    try {
      const slice = sliceOf(header, file);
      // The same instance at another place is none: some tools give all one number.
      const key = [slice.uid || file.name, ...slice.position].join();
      if (seen.has(key)) leave("slice that another file holds as well");
      else series.slices.push(slice);
      seen.add(key);
    } catch (error) {
      if (!(error instanceof BadFile)) throw error;
      series.fault ||= error.message; // and of no other series
    }
  }
  let found = [...byUid.values()].sort((a, b) => a.number - b.number || (a.uid < b.uid ? -1 : 1));
  const volumes = found.filter(({ slices, fault }) => fault || slices.length > 1);
  if (volumes.length) {
    if (volumes.length < found.length) leave("slice alone in its series", found.length - volumes.length);
    found = volumes;
  }
  for (const one of found) {
    const description = one.description || "no description";
    const [{ columns, rows } = {}] = one.slices;
    one.text = one.fault ? `${description}, which cannot be read: ${one.fault}`
      : `${one.slices.length} slices of ${columns}x${rows}, ${description}`;
  }
  return { series: found, leftOut: [...leftOut].map(([reason, count]) => `${count} of ${reason}`).join(", ") };
}

/**
 * Put the slices of a series in order. Gives them, with their shape and affine (to RAS+ mm), and
 * refuses what is no whole, upright stack.
 */
export function findStack({ slices, fault }) {
  if (fault) throw new BadFile(fault);
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
  const gaps = sorted.slice(1).map((each, k) => height(each) - height(sorted[k]));
  return { slices: sorted, affine, shape: [one.columns, one.rows, sorted.length], gaps };
}

function checkHeights(slices, heights) {
  const gaps = heights.slice(1).map((mm, k) => mm - heights[k]);
  const ordered = gaps.toSorted((a, b) => a - b);
  const usual = (ordered[Math.ceil(gaps.length / 2) - 1] + ordered[Math.floor(gaps.length / 2)]) / 2;
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
  try {
    const start = await parse(file.slice(0, HEADER_BYTES)).catch(() => null);
    return start?.elements[PIXELS] ? start : await parse(file);
  } catch (error) {
    if (await isBare(file))
      throw new BadFile(`${file.name}: lacks the first 132 bytes of a DICOM file; tunet predict takes it.`);
    throw new BadFile(
      `${file.name}: its DICOM header is damaged, or compressed in a way that this page does not know. ` +
        "tunet predict may take it.");
  }
}

/** Give a text; dicom-parser takes each byte for a letter, which of UTF-8 is wrong. */
function textOf(header, tag) {
  const text = header.string(tag);
  if (!text || header.string("x00080005") !== "ISO_IR 192") return text;
  return new TextDecoder().decode(Uint8Array.from(text, (letter) => letter.charCodeAt(0)));
}

// RescaleType of maps of a material, as of iodine in mg/ml.
const NO_HU = ["OD", "MGML", "Z_EFF", "ED", "EDW", "PCT"];

/** Say why a file is no slice of a CT; empty if it is one. */
function noSlice(header) {
  const modality = header.string("x00080060");
  if (modality !== "CT") return `modality ${modality || "unknown"}`;
  if ((header.string("x00080008") ?? "").includes("LOCALIZER")) return "localizer";
  if (header.string("x00280004")?.startsWith("PALETTE") || (header.uint16("x00280002") ?? 1) !== 1) return "color image";
  const kind = header.string("x00281054")?.toUpperCase();
  if (NO_HU.includes(kind)) return `map in ${kind}, not HU`;
  const isPlaced = MULTI_FRAME.includes(header.string("x00080016")) ||
    (header.string("x00200032") && header.string("x00200037"));
  return isPlaced ? "" : "image without a position";
}

/** Give the slice that a file is: each number is there, finite, and can be. */
function sliceOf(header, file) {
  const { name } = file;
  const damaged = (what) => new BadFile(`${name}: its DICOM header is damaged (${what}).`);
  const word = (tag, what) => {
    if (header.elements[tag]?.length !== 2) throw new BadFile(`${name}: its DICOM header lacks ${what}.`);
    return header.uint16(tag);
  };
  const numbers = (tag, what, count, otherwise) => {
    const text = header.string(tag) || otherwise;
    if (!text) throw new BadFile(`${name}: its DICOM header lacks ${what}.`);
    const values = text.split("\\").map((each) => (each.trim() ? Number(each) : NaN));
    if (values.length !== count || !values.every(Number.isFinite)) throw damaged(`${what} is ${text}`);
    return values;
  };
  if (MULTI_FRAME.includes(header.string("x00080016")))
    throw new BadFile(`${name} holds many frames in one file (enhanced CT); tunet predict takes it.`);
  if (header.string("x00280004") === "MONOCHROME1")
    throw new BadFile(`${name}: its values are inverted (MONOCHROME1), and so no HU.`);
  const [kind, sign] = [header.string("x00280004"), header.uint16("x00280103") ?? 0];
  if ((kind && kind !== "MONOCHROME2") || sign > 1) throw damaged(`its pixels are ${kind}, and their PixelRepresentation ${sign}`);
  const [rows, columns] = [word("x00280010", "Rows"), word("x00280011", "Columns")];
  if (!rows || !columns) throw damaged(`${rows} rows, ${columns} columns`);
  const [allocated, bits] = [word("x00280100", "BitsAllocated"), word("x00280101", "BitsStored")];
  const high = header.uint16("x00280102") || bits - 1;
  if (![8, 16, 32].includes(allocated) || bits < 1 || bits !== high + 1 || high >= allocated)
    throw damaged(`BitsAllocated is ${allocated}, BitsStored ${bits}, HighBit ${high}`);
  const [frames] = numbers("x00280008", "NumberOfFrames", 1, "1");
  if (frames > 1) throw damaged(`${frames} frames, and it tells of one slice`);
  const pixels = header.elements[PIXELS];
  checkPixels(pixels, file, columns * allocated / 8, rows, damaged);
  const [slope] = numbers("x00281053", "RescaleSlope", 1, "1");
  const [intercept] = numbers("x00281052", "RescaleIntercept", 1, "0");
  if (!slope) throw damaged("RescaleSlope is 0"); // dcm2niix would drop the intercept
  const [down, right] = numbers("x00280030", "PixelSpacing", 2);
  if (down <= 0 || right <= 0) throw damaged(`PixelSpacing is ${down}, ${right}`);
  const directions = numbers("x00200037", "ImageOrientationPatient", 6);
  const [first, second] = [directions.slice(0, 3), directions.slice(3)];
  const dot = (a, b) => a.reduce((sum, value, k) => sum + value * b[k], 0);
  const off = [dot(first, first) - 1, dot(second, second) - 1, dot(first, second)];
  if (off.some((value) => Math.abs(value) > 2 * DIRECTION)) throw damaged(`ImageOrientationPatient is ${directions}`);
  return {
    file, name, rows, columns,
    uid: header.string("x00080018"),
    pixels: {
      start: pixels.dataOffset, syntax: header.string("x00020010"), size: allocated / 8,
      isCoded: Boolean(pixels.hadUndefinedLength), slope, intercept,
      // What a pixel without a value holds; null if the file names nothing.
      padding: header.elements.x00280120?.length === 2 ? header[sign ? "int16" : "uint16"]("x00280120") : null,
    },
    position: numbers("x00200032", "ImagePositionPatient", 3),
    axes: [first.map((value) => value * right), second.map((value) => value * down)],
  };
}

/** Compare pixels, unless they are compressed, with what the header promises. */
function checkPixels(pixels, file, rowBytes, rows, damaged) {
  if (!pixels) throw damaged("it ends before its pixels");
  if (pixels.hadUndefinedLength) return;
  const size = Math.min(pixels.length, file.size - pixels.dataOffset);
  const promised = rowBytes * rows;
  if (size < promised || size >= promised + rowBytes) // some fill up a little
    throw damaged(`its pixels take ${promised} bytes, and it has ${size}`);
}
