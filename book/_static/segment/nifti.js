// NIfTI files, .nii and .nii.gz: read with the checks of tunet_lib/nifti_header.py, and written.

export class BadFile extends Error {}

const HEADER_BYTES = 348;
const HEADER_2_BYTES = 540;
const MOST_BYTES = 2 ** 31 - 1; // of an array that every browser can make
const MM_PER_UNIT = { 1: 1000, 3: 0.001 }; // xyzt_units; all others are taken for mm
const VOXEL_MM = [0.05, 50];
const MOST_MM = 4000; // no scanner's table moves so far
const MOST_OFFSET = 2 ** 28; // more than any extension before the voxels takes

// NIfTI's number of a type → how to read the voxel at a byte.
const TYPES = {
  2: ["getUint8", 1, Uint8Array],
  4: ["getInt16", 2, Int16Array],
  8: ["getInt32", 4, Int32Array],
  16: ["getFloat32", 4, Float32Array],
  64: ["getFloat64", 8, Float64Array],
  256: ["getInt8", 1, Int8Array],
  512: ["getUint16", 2, Uint16Array],
  768: ["getUint32", 4, Uint32Array],
  1024: ["getBigInt64", 8, null],
  1280: ["getBigUint64", 8, null],
};

/** Read a file. Gives its shape (fastest axis first), affine (to RAS+ mm), and voxels in HU. */
export async function readNifti(blob, name = "The file") {
  const bytes = await unpack(blob, name);
  const header = readHeader(bytes, name);
  return { name, header: bytes.slice(0, header.bytes), ...header, voxels: voxelsOf(bytes, header, name) };
}

/** Write 8 bits a voxel, such as a label map, packed, with the header of the CT that they belong to. */
export async function writeNifti(label, ct) {
  const isSecond = ct.bytes === HEADER_2_BYTES;
  const offset = isSecond ? 544 : 352;
  const file = new Uint8Array(offset + label.length);
  file.set(ct.header);
  file.set(label, offset);
  const view = new DataView(file.buffer);
  const little = ct.isLittle;
  // Free text may name the patient, and slope and display range belong to the CT's values.
  const blank = isSecond
    ? [[80, 24], [176, 32], [240, 104], [504, 20]]
    : [[4, 36], [56, 12], [112, 11], [124, 8], [148, 104], [328, 16]];
  for (const [start, count] of blank) file.fill(0, start, start + count);
  if (isSecond) {
    view.setInt16(12, 2, little);
    view.setInt16(14, 8, little);
    view.setBigInt64(168, BigInt(offset), little);
    view.setFloat64(176, 1, little);
  } else {
    view.setInt16(68, 0, little); // intent
    view.setInt16(70, 2, little);
    view.setInt16(72, 8, little);
    view.setFloat32(108, offset, little);
    view.setFloat32(112, 1, little);
    file.set([110, 43, 49, 0], 344); // n+1: header and voxels in one file
  }
  const stream = new Blob([file]).stream().pipeThrough(new CompressionStream("gzip"));
  return new Response(stream).blob();
}

/** Write voxels as the page understood them, whatever their file says: in mm, and `shift` subtracted. */
export function plainNifti(voxels, { shape, affine }, shift = 0) {
  const view = new DataView(new ArrayBuffer(352));
  const type = Object.keys(TYPES).find((one) => TYPES[one][2] === voxels.constructor);
  const shorts = (at, values) => values.forEach((value, k) => view.setInt16(at + 2 * k, value, true));
  const floats = (at, values) => values.forEach((value, k) => view.setFloat32(at + 4 * k, value, true));
  view.setInt32(0, HEADER_BYTES, true);
  shorts(40, [3, ...shape, 1, 1, 1, 1]); // dim
  shorts(70, [Number(type), 8 * voxels.BYTES_PER_ELEMENT]);
  floats(76, [1, ...voxelSizes(affine)]); // pixdim
  floats(108, [352, 1, -shift]); // vox_offset, slope, intercept
  view.setUint8(123, 2); // mm
  view.setInt16(254, 1, true); // sform_code
  floats(280, affine.flat());
  new Uint8Array(view.buffer).set([110, 43, 49, 0], 344);
  return new Blob([view, voxels]);
}

async function unpack(blob, name) {
  if (blob.size < 4) throw new BadFile(`${name} is empty.`);
  const [first, second] = new Uint8Array(await blob.slice(0, 2).arrayBuffer());
  if (first !== 0x1f || second !== 0x8b) return new Uint8Array(await blob.arrayBuffer());
  const parts = [];
  const reader = blob.stream().pipeThrough(new DecompressionStream("gzip")).getReader();
  try {
    for (let part; !(part = await reader.read()).done; ) parts.push(part.value);
    return new Uint8Array(await new Blob(parts).arrayBuffer());
  } catch {
    return unpackPatiently(new Uint8Array(await blob.arrayBuffer()), name);
  }
}

/** Unpack several gzips in a row, or one with bytes behind its end: browsers refuse both. */
async function unpackPatiently(packed, name) {
  const { Inflate } = await import("../vendor/pako/pako_inflate.esm.min.mjs");
  const inflate = new Inflate({ chunkSize: 2 ** 20 });
  const parts = [];
  inflate.onData = (part) => parts.push(part);
  inflate.push(packed);
  const { ended, err, strm } = inflate;
  if (err) parts.push(strm.output.subarray(0, strm.next_out));
  // Where the last gzip is none, since it gave nothing, those before it were whole.
  const isWhole = ended && (!err || (strm.total_out === 0 && parts.some(({ length }) => length)));
  if (!isWhole) throw new BadFile(`${name} is cut short or damaged. Get it again from where it came from.`);
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

function readHeader(bytes, name) {
  if (bytes.length < 4) throw new BadFile(`${name} is empty.`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const size = [true, false].map((little) => view.getInt32(0, little));
  const isLittle = size[0] === HEADER_BYTES || size[0] === HEADER_2_BYTES;
  const headerBytes = isLittle ? size[0] : size[1];
  if (headerBytes !== HEADER_BYTES && headerBytes !== HEADER_2_BYTES)
    throw new BadFile(
      `${name} is not a NIfTI image. This page takes .nii, .nii.gz and folders of DICOM; tunet predict also ` +
        "takes NRRD and MetaImage.");
  if (bytes.length < headerBytes) throw new BadFile(`${name} ends within its header. Get it again.`);
  const read = headerBytes === HEADER_BYTES ? readFirst : readSecond;
  const header = { bytes: headerBytes, isLittle, ...read(view, isLittle) };
  const [dimensions, ...sizes] = header.dim;
  const isOne = sizes.slice(3, dimensions).every((count) => count === 1);
  if (dimensions < 3 || !isOne || sizes.slice(0, 3).some((count) => count < 1))
    throw new BadFile(`${name} has the shape ${sizes.slice(0, Math.max(dimensions, 0)).join(" x ")}; a CT has three axes.`);
  if (!(header.type in TYPES)) throw new BadFile(`${name} holds voxels of a type that is no CT's.`);
  if (!(header.offset >= 0 && header.offset <= MOST_OFFSET))
    throw new BadFile(`${name} has a vox_offset of ${header.offset}. Correct its header.`);
  const offset = Math.max(header.offset, headerBytes + 4);
  const shape = sizes.slice(0, 3);
  const placed = affineOf(header, name);
  const reach = voxelSizes(placed.affine).map((mm, k) => mm * shape[k]);
  if (Math.max(...reach) > MOST_MM)
    throw new BadFile(`${name} measures ${reach.map((mm) => mm.toFixed(0)).join(" x ")} mm. Correct its voxel size.`);
  return { ...header, offset, shape, ...placed };
}

function readFirst(view, little) {
  const float = (at) => view.getFloat32(at, little);
  return {
    dim: range(8).map((k) => view.getInt16(40 + 2 * k, little)),
    type: view.getInt16(70, little),
    pixdim: range(4).map((k) => float(76 + 4 * k)),
    offset: float(108),
    isPair: view.getUint8(345) === 105, // ni1: the voxels are in another file
    slope: float(112),
    intercept: float(116),
    units: view.getUint8(123),
    qformCode: view.getInt16(252, little),
    sformCode: view.getInt16(254, little),
    quaternion: range(6).map((k) => float(256 + 4 * k)),
    sform: range(3).map((row) => range(4).map((k) => float(280 + 16 * row + 4 * k))),
  };
}

function readSecond(view, little) {
  const float = (at) => view.getFloat64(at, little);
  const whole = (at) => Number(view.getBigInt64(at, little));
  return {
    dim: range(8).map((k) => whole(16 + 8 * k)),
    type: view.getInt16(12, little),
    pixdim: range(4).map((k) => float(104 + 8 * k)),
    offset: whole(168),
    isPair: view.getUint8(5) === 105,
    slope: float(176),
    intercept: float(184),
    units: view.getInt32(500, little),
    qformCode: view.getInt32(344, little),
    sformCode: view.getInt32(348, little),
    quaternion: range(6).map((k) => float(352 + 8 * k)),
    sform: range(3).map((row) => range(4).map((k) => float(400 + 32 * row + 8 * k))),
  };
}

/** Of sform and qform the first that is usable; without either, x runs to the left, as in LAS. */
function affineOf(header, name) {
  const warnings = [];
  const found = [];
  if (header.sformCode > 0) found.push(["sform", header.sform]);
  const pixdim = header.pixdim.slice(1);
  const isSized = pixdim.every((mm) => mm > 0 && Number.isFinite(mm));
  if (header.qformCode > 0 && isSized) found.push(["qform", fromQuaternion(header)]);
  if (!found.length) {
    if (!isSized) throw new BadFile(`${name} has no usable voxel size. Correct pixdim in its header.`);
    warnings.push("It does not say how the patient lies; the order that is most common is assumed.");
    const [x, y, z] = pixdim;
    const middle = header.dim.slice(1, 4).map((count) => (count - 1) / 2);
    found.push(["pixdim", [[-x, 0, 0, x * middle[0]], [0, y, 0, -y * middle[1]], [0, 0, z, -z * middle[2]]]]);
  }
  const usable = found.filter(([, one]) => isUsable(one));
  if (!usable.length) throw new BadFile(`${name} does not say where its voxels lie. Correct its header.`);
  const [[which, affine]] = usable;
  if (which !== found[0][0]) warnings.push(`Its ${found[0][0]} is not usable, so ${which} is taken.`);
  const sizes = voxelSizes(affine);
  const listed = (mm) => mm.map((one) => Number(one.toPrecision(3))).join(" x ");
  if (!isSized) warnings.push(`It has no usable voxel size in pixdim, so that of its ${which} is taken.`);
  else if (sizes.some((mm, k) => Math.abs(mm / pixdim[k] - 1) > 0.01))
    warnings.push(
      `Its ${which} says that a voxel measures ${listed(sizes)} mm, its pixdim ${listed(pixdim)} mm; ` +
        `${which} is taken, so compare a length with the scanner's.`);
  if (new Set(usable.map(([, one]) => directionsOf(one))).size > 1)
    warnings.push(
      `Its sform and qform disagree on how the patient lies; ${which} is taken, so make sure of right and left.`);
  const named = MM_PER_UNIT[header.units & 7] ?? 1;
  const factors = [named, 1, ...Object.values(MM_PER_UNIT)];
  const factor = factors.find((one) =>
    sizes.every((size) => size * one >= VOXEL_MM[0] && size * one <= VOXEL_MM[1]));
  if (factor === undefined)
    throw new BadFile(`${name}: its voxels would measure ${sizes.map((s) => s.toPrecision(3)).join(" x ")} mm, which is no CT's.`);
  if (factor !== 1 || named !== 1)
    warnings.push(`Its voxels are taken to measure ${listed(sizes.map((mm) => mm * factor))} mm.`);
  return { affine: affine.map((row) => row.map((value) => value * factor)), warnings };
}

/** The side of the patient that each axis of the file runs to, as a text. */
function directionsOf(affine) {
  return range(3).map((column) => {
    const along = affine.map((row) => row[column]);
    const row = along.reduce((best, mm, k) => (Math.abs(mm) > Math.abs(along[best]) ? k : best), 0);
    return `${along[row] < 0 ? "-" : "+"}${row}`;
  }).join();
}

function fromQuaternion({ quaternion: [b, c, d, ...start], pixdim: [qfac, ...sizes] }) {
  const a = Math.sqrt(Math.max(0, 1 - b * b - c * c - d * d));
  const turn = [
    [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
    [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
    [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
  ];
  const scale = [sizes[0], sizes[1], qfac < 0 ? -sizes[2] : sizes[2]];
  return turn.map((row, k) => [...row.map((value, column) => value * scale[column]), start[k]]);
}

/** The volume of a voxel, in mm³. */
export function voxelMm3([a, b, c]) {
  return Math.abs(
    a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0]) +
      a[2] * (b[0] * c[1] - b[1] * c[0]));
}

function isUsable(affine) {
  return affine.flat().every(Number.isFinite) && voxelMm3(affine) > 1e-3 * voxelSizes(affine).reduce((x, y) => x * y);
}

/** The size of a voxel along each axis of the file, in mm. */
export function voxelSizes(affine) {
  return range(3).map((column) => Math.hypot(...affine.map((row) => row[column])));
}

function voxelsOf(bytes, header, name) {
  const [getter, size, Kind] = TYPES[header.type];
  const count = header.shape.reduce((product, length) => product * length, 1);
  if (header.isPair) throw new BadFile(`${name} is one of a pair of files. Save it as .nii or .nii.gz.`);
  if (count * 4 > MOST_BYTES)
    throw new BadFile(`${name} has ${Math.round(count / 1e6)} million voxels, more than a browser can hold; tunet predict takes it.`);
  if (bytes.length < header.offset + count * size)
    throw new BadFile(`${name} is cut short or damaged. Get it again from where it came from.`);
  const isPlain = !(header.slope !== 0 && Number.isFinite(header.slope)) || (header.slope === 1 && header.intercept === 0);
  const start = bytes.byteOffset + header.offset;
  const isAligned = header.isLittle && start % size === 0;
  if (isPlain && isAligned && Kind && Kind !== Float64Array) return finite(new Kind(bytes.buffer, start, count), name);
  const view = new DataView(bytes.buffer, start);
  const voxels = new Float32Array(count);
  const [slope, intercept] = isPlain ? [1, 0] : [header.slope, header.intercept];
  for (let k = 0; k < count; k++) voxels[k] = Number(view[getter](k * size, header.isLittle)) * slope + intercept;
  return finite(voxels, name);
}

function finite(voxels, name) {
  if (voxels instanceof Float32Array && !Number.isFinite(voxels.reduce((sum, value) => sum + value, 0)))
    throw new BadFile(`${name} has voxels without a number (NaN or infinite).`);
  return voxels;
}

function range(count) {
  return [...Array(count).keys()];
}
