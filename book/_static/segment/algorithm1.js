// Algorithm 1 of Vu et al. 2019: tunet_lib/postprocess.py, function by function.

import { forEachVoxel } from "./networks.js";

/** From probability maps and L-Net's mask to a label map on the grid: 1 kidney, 2 tumor. */
export function algorithm1(wholeProb, tumorProb, lnetMask, { shape, config, paper }) {
  const volume = (spacing) => spacing.reduce((a, b) => a * b, 1);
  const spacing = config.grid_fov_mm.map((fov, k) => fov / config.grid_shape[k]);
  const smallVoxels = (config.small_tumor_voxels * volume(paper.grid_spacing_mm)) / volume(spacing);
  const whole = wholeRegion(wholeProb, shape, config);
  const tumor = tumorRegion(tumorProb, whole, { shape, config, smallVoxels });
  const label = whole.map((inside, k) => (tumor[k] ? 2 : inside));
  // Line 28. An empty mask is not applied.
  return lnetMask?.includes(1) ? label.map((value, k) => value * lnetMask[k]) : label;
}

/** Lines 1-9. */
function wholeRegion(prob, shape, config) {
  const high = reaching(prob, config.high_threshold);
  if (!high.includes(1)) return reaching(prob, config.empty_low_threshold);
  return grow(high, reaching(prob, config.whole_low_threshold), shape);
}

/** Lines 1-2 and 10-26. */
function tumorRegion(prob, whole, { shape, config, smallVoxels }) {
  const high = reaching(prob, config.high_threshold);
  const size = high.reduce((sum, one) => sum + one, 0);
  if (!size) {
    let low = reaching(prob, config.empty_low_threshold);
    if (!low.includes(1) && config.tumor_is_whole_if_none) low = whole;
    return config.keep_low_if_high_empty ? low : grow(high, low, shape);
  }
  const low = size < smallVoxels ? config.small_tumor_low_threshold : config.tumor_low_threshold;
  return grow(high, reaching(prob, low), shape);
}

/** Keep the parts of `low` that touch `high`, by faces, edges or corners; and all of `high`. */
export function grow(high, low, shape) {
  const grown = high.slice();
  const places = [];
  const waiting = [];
  forEachVoxel(shape, (place, z, y, x) => {
    if (high[place] && low[place]) { waiting.push(place); places.push([z, y, x]); }
  });
  const seen = new Uint8Array(low.length);
  for (const place of waiting) seen[place] = 1;
  while (places.length) {
    const [z, y, x] = places.pop();
    for (let a = Math.max(z - 1, 0); a < Math.min(z + 2, shape[0]); a++)
      for (let b = Math.max(y - 1, 0); b < Math.min(y + 2, shape[1]); b++)
        for (let c = Math.max(x - 1, 0); c < Math.min(x + 2, shape[2]); c++) {
          const place = (a * shape[1] + b) * shape[2] + c;
          if (!low[place] || seen[place]) continue;
          seen[place] = grown[place] = 1;
          places.push([a, b, c]);
        }
  }
  return grown;
}

function reaching(prob, threshold) {
  return Uint8Array.from(prob, (value) => (value >= threshold ? 1 : 0));
}
