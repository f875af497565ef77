// Compressed pixels of DICOM must be as many as the header says: tunet_lib/dicom_pixels.py. dcm2niix
// cuts what is more, and fills what is less.

const ITEM = 0xe000fffe;
const RLE = "1.2.840.10008.1.2.5";
const JPEG_2000 = [0xff, 0x4f, 0xff, 0x51];
const FIRST_BYTES = 4096; // in which a JPEG 2000 begins
const NO_FRAMES = [0xc4, 0xc8, 0xcc];

/** Say whether a file's coded plane, { start, syntax, bytes a pixel }, has so many rows and columns. */
export function isWhole(file, { start, syntax, size }, rows, columns) {
  try {
    const coded = planeAt(file, start);
    if (syntax === RLE) return isWholeRle(coded, size, rows * columns, columns);
    const found = sizeOf(coded);
    return found[0] === rows && found[1] === columns && found[2] === 1;
  } catch (error) {
    if (error instanceof RangeError) return false; // it ends before what it promises
    throw error;
  }
}

/** Join the items of a plane; the first is a table. */
function planeAt(file, start) {
  const view = viewOf(file);
  const items = [];
  for (let at = start; view.getUint32(at, true) === ITEM; at += 8 + items.at(-1).length)
    items.push(file.subarray(at + 8, at + 8 + view.getUint32(at + 4, true)));
  const plane = new Uint8Array(items.slice(1).reduce((sum, { length }) => sum + length, 0));
  items.slice(1).reduce((at, item) => { plane.set(item, at); return at + item.length; }, 0);
  return plane;
}

/** RLE: a segment for each byte of a pixel; some fill up less than a row. */
function isWholeRle(coded, size, count, columns) {
  const view = viewOf(coded);
  const starts = Array.from({ length: size }, (_, k) => view.getUint32(4 + 4 * k, true));
  return view.getUint32(0, true) === size && starts.every((start, k) => {
    const made = unpackedBytes(coded.subarray(start, starts[k + 1]));
    return made >= count && made < count + columns;
  });
}

function unpackedBytes(packed) {
  let made = 0;
  for (let at = 0; at < packed.length;) {
    const head = packed[at];
    const isRun = head > 128;
    if (head < 128) made += Math.min(head + 1, packed.length - at - 1);
    else if (isRun && at + 1 < packed.length) made += 257 - head;
    at += head < 128 ? head + 2 : 1 + isRun;
  }
  return made;
}

/** What a JPEG promises: rows, columns, and values a pixel. */
function sizeOf(coded) {
  const view = viewOf(coded);
  for (let at = 0; at < Math.min(FIRST_BYTES, coded.length - 42); at++) {
    if (!JPEG_2000.every((byte, k) => coded[at + k] === byte)) continue;
    const [right, below, left, above] = [8, 12, 16, 20].map((k) => view.getUint32(at + k));
    return [below - above, right - left, view.getUint16(at + 40)];
  }
  for (let at = 2; coded[at] === 0xff; at += 2 + view.getUint16(at + 2)) {
    const mark = coded[at + 1];
    if ((mark >= 0xc0 && mark < 0xd0 && !NO_FRAMES.includes(mark)) || mark === 0xf7)
      return [view.getUint16(at + 5), view.getUint16(at + 7), coded[at + 9]];
  }
  return [];
}

function viewOf(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}
