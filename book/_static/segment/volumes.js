// How much kidney and tumor lies on which side of the patient: tunet_lib/volumes.py.

const APART_MM = 50; // two kidneys lie farther apart than this, from left to right
const ONE_KIDNEY_MM = 150; // no single one is as wide; two that have grown together are
const KIDNEY_ML = 15; // even a shrunken one has more, and what a network makes up seldom has

/**
 * Give kidney_left, kidney_right, tumor_left and tumor_right in ml. `label` is in the order of its
 * file, `axes` says along which of the patient's axes the file's run.
 */
export function volumesMl(label, { shape, axes, sizesMm, voxelMl }) {
  const along = axes.findIndex(({ axis }) => axis === 2); // the file's axis from right to left, or back
  const columns = shape[along];
  const found = parts(label, shape, (at) => (axes[along].isForward ? at[along] : columns - 1 - at[along]));
  const [one, ...rest] = found.filter(({ kidney }) => kidney * voxelMl > KIDNEY_ML).sort((a, b) => b.size - a.size);
  const other = rest.find(({ center }) => Math.abs(one.center - center) * sizesMm[along] > APART_MM);
  const middle = other ? (one.center + other.center) / 2 : (columns - 1) / 2;
  const ml = { kidney_left: 0, kidney_right: 0, tumor_left: 0, tumor_right: 0 };
  for (const { counts, center, width } of found)
    for (const [name, inColumns] of Object.entries(counts))
      inColumns.forEach((count, column) => {
        // Beside another kidney the wide one has a large tumor, and is no horseshoe.
        const at = !other && width * sizesMm[along] > ONE_KIDNEY_MM ? column : center;
        ml[`${name}_${at > middle ? "left" : "right"}`] += count * voxelMl;
      });
  return ml;
}

/** What hangs together by faces, edges or corners: of each part, the voxels in every column. */
function parts(label, [nx, ny, nz], columnOf) {
  const seen = new Uint8Array(label.length);
  const columns = Math.max(nx, ny, nz);
  const found = [];
  for (let start = 0; start < label.length; start++) {
    if (!label[start] || seen[start]) continue;
    const counts = { kidney: new Uint32Array(columns), tumor: new Uint32Array(columns) };
    const waiting = [start];
    seen[start] = 1;
    while (waiting.length) {
      const place = waiting.pop();
      const at = [place % nx, Math.floor(place / nx) % ny, Math.floor(place / (nx * ny))];
      counts[label[place] === 2 ? "tumor" : "kidney"][columnOf(at)] += 1;
      for (let z = Math.max(at[2] - 1, 0); z < Math.min(at[2] + 2, nz); z++)
        for (let y = Math.max(at[1] - 1, 0); y < Math.min(at[1] + 2, ny); y++)
          for (let x = Math.max(at[0] - 1, 0); x < Math.min(at[0] + 2, nx); x++) {
            const next = (z * ny + y) * nx + x;
            if (!label[next] || seen[next]) continue;
            seen[next] = 1;
            waiting.push(next);
          }
    }
    found.push(measured(counts));
  }
  return found;
}

function measured(counts) {
  const both = counts.kidney.map((count, column) => count + counts.tumor[column]);
  const [size, kidney] = [both, counts.kidney].map((all) => all.reduce((sum, count) => sum + count, 0));
  const center = both.reduce((sum, count, column) => sum + count * column, 0) / size;
  const width = both.findLastIndex((count) => count) - both.findIndex((count) => count) + 1;
  return { counts, size, kidney, center, width };
}
