// A CT is checked before it is believed: tunet_lib/plausible.py. What cannot be mended without doubt
// is refused; the rest is a sentence of doubt.

import { BadFile } from "./nifti.js";
import { PADDING_HU } from "./placement.js";

const FAR_BELOW_HU = -1500;
const SHIFT_HU = 1024;
const MOST_HU = 1e5; // 16 bits hold 65,535, and metal on the scale of some scanners 30,000
const FEW_SLICES = 20;
const SHORT_MM = 80; // kidneys are about 110 mm long
const WIDE_MM = [150, 800]; // of a body, from side to side
const TALL_MM = 2200;
const TISSUE_HU = [-120, 150]; // where the typical voxel of a body lies
const NO_AIR_HU = -200;
const BODY_HU = -300;
// Along the patient's axes, as axesOf gives them.
const BORDERS = [["first slice (head)", "last slice (feet)"], ["front", "back"], ["right side", "left side"]];

/** Doubt a CT that is too short, too narrow or too large to be one of an abdomen. */
export function checkExtent({ scan }) {
  const doubts = [];
  const extent = extentMm(scan);
  const [tall, ...across] = extent;
  if (scan[0].count < FEW_SLICES || tall < SHORT_MM)
    doubts.push(
      `It has only ${scan[0].count} slices, ${tall.toFixed(0)} mm in all; a kidney is about 110 mm long, so ` +
        "volumes may be of parts.");
  if (tall > TALL_MM || Math.min(...across) < WIDE_MM[0] || Math.max(...across) > WIDE_MM[1])
    doubts.push(
      `It measures ${extent.map((mm) => mm.toFixed(0)).join(" x ")} mm (head to feet, front to back, side to ` +
        "side), which is no abdomen's size. Check its voxel size.");
  return doubts;
}

/** Refuse a value that would drown all others; doubt padding far below air, which is taken for air. */
export function checkValues({ voxels, name }) {
  let [low, high] = [Infinity, -Infinity];
  for (let k = 0; k < voxels.length; k++) {
    if (voxels[k] < low) low = voxels[k];
    if (voxels[k] > high) high = voxels[k];
  }
  if (high > MOST_HU)
    throw new BadFile(`${name} has a value of ${high.toPrecision(3)}, which is no HU. Correct its voxels.`);
  return low < FAR_BELOW_HU ? [`It has padding below ${PADDING_HU} HU, which is taken for air.`] : [];
}

/** Check that values are HU; those that are HU + 1024 are mended in place, and `shift` says by how much. */
export function believe(gridHu, coverage, { scan }, name) {
  const doubt = (...doubts) => ({ doubts, shift: 0 });
  const own = gridHu.filter((_, k) => coverage[k] > 0.999).sort();
  if (!own.length) return doubt();
  const [low, high] = [own[0], own[own.length - 1]];
  const shown = `values from ${low.toFixed(0)} to ${high.toFixed(0)}`;
  if (high - low < 1e-3) return doubt("It has one value everywhere; there is nothing to be found.");
  if (high - low < 20 || (low > -0.5 && high < 255.5)) {
    const what = `holds no HU, but ${shown}, as pictures have`;
    if (Math.min(...extentMm(scan)) > SHORT_MM) throw new BadFile(`${name} ${what}. Export it in HU.`);
    return doubt(`It ${what}.`);
  }
  if (isNegative(own)) throw new BadFile(`${name} has ${shown}: HU with their sign turned. Multiply them by -1.`);
  if (isShifted(own)) {
    for (let k = 0; k < gridHu.length; k++)
      gridHu[k] = Math.max(gridHu[k] - SHIFT_HU * coverage[k], PADDING_HU); // its padding was air already
    return { doubts: [`It has ${shown}: HU + ${SHIFT_HU}; ${SHIFT_HU} is subtracted.`], shift: SHIFT_HU };
  }
  if (low > NO_AIR_HU) return doubt(`It has ${shown}, and so no air. Make sure that they are HU.`);
  const body = own.filter((hu) => hu > BODY_HU);
  const typical = body.length ? middle(body) : low;
  if (isTissue(typical)) return doubt();
  return doubt(`It has ${shown}, and a body of typically ${typical.toFixed(0)}; about 40 HU are expected.`);
}

/** Doubt a label map, in the order of its file, that is empty, or that ends where its CT ends. */
export function checkLabel(label, shape, axes) {
  if (!label.some((value) => value)) return ["No kidney was found. Does it show the abdomen?"];
  const reached = new Set();
  const [width, height] = shape;
  for (let place = 0; place < label.length; place++) {
    if (!label[place]) continue;
    const at = [place % width, Math.floor(place / width) % height, Math.floor(place / (width * height))];
    axes.forEach(({ axis, isForward }, k) => {
      if (at[k] === 0) reached.add(BORDERS[axis][isForward ? 0 : 1]);
      if (at[k] === shape[k] - 1) reached.add(BORDERS[axis][isForward ? 1 : 0]);
    });
  }
  const cut = BORDERS.flat().filter((border) => reached.has(border));
  if (!cut.length) return [];
  return [
    `Kidney or tumor reach the border of the CT (${cut.join(", ")}): it cuts them, and volumes are of what it shows.`,
  ];
}

function extentMm(scan) {
  return scan.map(({ count, mm }) => count * mm);
}

/** Nothing where air would be, and tissue about 1024. */
function isShifted(own) {
  if (share(own, (hu) => hu < BODY_HU) > 0.5 || share(own, (hu) => hu > -900 && hu < BODY_HU) > 0.05) return false;
  const body = own.filter((hu) => hu > SHIFT_HU + BODY_HU);
  return body.length > 0.05 * own.length && isTissue(middle(body) - SHIFT_HU);
}

/** Air far above everything, none below, and most tissue below 0; of HU + 1024 that air would lie at 24. */
function isNegative(own) {
  if (share(own, (hu) => hu > 900) < 0.05 || share(own, (hu) => hu < -900) > 0.01) return false;
  const tissue = own.filter((hu) => hu < -BODY_HU).map((hu) => -hu).sort();
  return tissue.length > 0.05 * own.length && share(tissue, (hu) => hu > 25) > 0.2 && isTissue(middle(tissue));
}

function isTissue(hu) {
  return hu >= TISSUE_HU[0] && hu <= TISSUE_HU[1];
}

function share(values, holds) {
  return values.filter(holds).length / values.length;
}

function middle(sorted) {
  const half = sorted.length / 2;
  return (sorted[Math.ceil(half) - 1] + sorted[Math.floor(half)]) / 2;
}
