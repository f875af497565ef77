// The CT series that a heap of DICOM files holds, and the order of their slices, by their headers:
// tunet_lib/dicom.py and tunet_lib/dicom_stack.py. dicom-parser reads a header.

import { BadFile } from "./nifti.js";
import { axesOf } from "./placement.js";

// The first element of a file without preamble, of group 2 or 8 (tunet_lib/dicom.py).
const BARE = [[2, [0, 1, 2]], [8, [0, 1, 5, 8, 0x12, 0x16]]];
const HEADER_BYTES = 2 ** 16; // in which most headers end; of the others all is read
const PIXELS = "x7fe00010";
const SINGLE_FRAME = "1.2.840.10008.5.1.4.1.1.2";
const MULTI_FRAME = ["1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"]; // enhanced CT, legacy
const MODALITY = "x00080060";
const DEFLATED = "1.2.840.10008.1.2.1.99";
const OTHERS = /\.(nii|nii\.gz|hdr|nrrd|nhdr|mha|mhd)$/i;
const PACKED = /\.(zip|tar|tgz|gz|bz2|xz|7z|rar)$/i;
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
  const seen = new Map();
  const unread = []; // why not, of files of which nobody knows whether they are of a CT
  const leave = (reason, count = 1) => leftOut.set(reason, (leftOut.get(reason) ?? 0) + count);
  for (const [number, file] of files.entries()) {
    if (/^DICOMDIR$/i.test(file.name) || !(await isDicom(file))) {
      const reason = await whyUnread(file);
      if (reason) leave(reason);
      continue;
    }
    let header;
    try {
      header = await headerOf(file);
    } catch (error) {
      const modality = await modalityBefore(file);
      if (modality && modality !== "CT") leave(`damaged file of modality ${modality}`);
      else if (modality || !(await isOfAnotherKind(file))) throw error;
      else unread.push(error);
      continue;
    }
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
      // Some tools give one number to all instances: only one with the place and the pixels of
      // another is its copy.
      const key = [uid, slice.uid || number, ...slice.position].join();
      const twin = seen.get(key);
      if (twin && (await isSame(slice, twin))) leave("slice that another file holds as well");
      else series.slices.push(slice);
      seen.set(key, twin ?? slice);
    } catch (error) {
      if (!(error instanceof BadFile)) throw error;
      series.fault ||= error.message; // and of no other series
    }
  }
  if (unread.length) {
    if (!byUid.size) throw unread[0];
    leave("file that this page cannot read", unread.length);
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
  checkUnmixed(sorted);
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

/** Make sure that what was acquired or computed in several goes lies one behind the other. */
function checkUnmixed(slices) {
  const count = new Set(slices.map(({ madeBy }) => madeBy)).size;
  const turns = slices.slice(1).map((each, k) => [slices[k], each]).filter(([a, b]) => a.madeBy !== b.madeBy);
  if (turns.length < count) return;
  const [[one, other]] = turns;
  throw new BadFile(
    `This mixes ${count} acquisitions or kernels in one series: ${one.name} is of ${one.madeBy || "none"}, ` +
      `and ${other.name} of ${other.madeBy || "none"}. Keep the files of one.`);
}

/** Compare the pixels of two slices, and what makes HU of them. */
async function isSame(one, other) {
  const kept = ["slope", "intercept", "padding", "syntax"];
  if (kept.some((key) => one.pixels[key] !== other.pixels[key])) return false;
  const [mine, theirs] = await Promise.all([one, other].map(async ({ file, pixels: { start, end } }) =>
    new Uint8Array(await file.slice(start, end).arrayBuffer())));
  return mine.length === theirs.length && mine.every((byte, k) => byte === theirs[k]);
}

/** Say why a file that is no DICOM may have been a slice; empty if it is just another file. */
async function whyUnread(file) {
  const start = new Uint8Array(await file.slice(0, 132).arrayBuffer());
  if (!start.some(Boolean)) return start.length ? "file of zeros" : "empty file";
  if (OTHERS.test(file.name)) return "image of another format";
  return PACKED.test(file.name) ? "packed file, which is to be unpacked first" : "";
}

async function parsed(part, untilTag) {
  return window.dicomParser.parseDicom(new Uint8Array(await part.arrayBuffer()), { untilTag });
}

/** Say what made an image whose header is damaged further on; empty if nobody knows. */
async function modalityBefore(file) {
  const header = await parsed(file.slice(0, HEADER_BYTES), MODALITY).catch(() => null);
  return header ? modalityOf(header) : "";
}

function modalityOf(header) {
  const isCt = [SINGLE_FRAME, ...MULTI_FRAME].includes(header.string("x00080016"));
  return header.string(MODALITY) || (isCt ? "CT" : "");
}

/** Tell whether dicom-parser knows nothing of such a file: its preamble is missing, or it is deflated. */
async function isOfAnotherKind(file) {
  return (await isBare(file)) || (await file.slice(0, 1024).text()).includes(DEFLATED);
}

async function headerOf(file) {
  try {
    const start = await parsed(file.slice(0, HEADER_BYTES), PIXELS).catch(() => null);
    return start?.elements[PIXELS] ? start : await parsed(file, PIXELS);
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
  const modality = modalityOf(header);
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
  let [first, second] = [directions.slice(0, 3), directions.slice(3)];
  const dot = (a, b) => a.reduce((sum, value, k) => sum + value * b[k], 0);
  const off = [dot(first, first) - 1, dot(second, second) - 1, dot(first, second)];
  if (off.some((value) => Math.abs(value) > 2 * DIRECTION)) throw damaged(`ImageOrientationPatient is ${directions}`);
  // Rounded ones would change the size of a voxel, by up to a hundredth.
  first = first.map((value) => value / Math.hypot(...first));
  const along = dot(second, first);
  second = second.map((value, k) => value - along * first[k]);
  second = second.map((value) => value / Math.hypot(...second));
  return {
    file, name, rows, columns,
    uid: header.string("x00080018"),
    madeBy: [["acquisition", "x00200012"], ["kernel", "x00181210"]]
      .filter(([, tag]) => header.string(tag)).map(([what, tag]) => `${what} ${header.string(tag)}`).join(", "),
    pixels: {
      start: pixels.dataOffset,
      end: pixels.hadUndefinedLength ? file.size : pixels.dataOffset + pixels.length, syntax: header.string("x00020010"), size: allocated / 8,
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
