/** What a model takes, how a person gives it, and the arrays that come of it. */

import {ModelError} from './model.js';

const TYPES = {float32: Float32Array, int32: Int32Array, uint8: Uint8Array};
const SMALLEST = 8; // a row of fewer than 8 * 8 numbers is no picture

/** The values that the pixels of a picture may have: [those of black, of white]. */
export const RANGES = {'0 to 1': [0, 1], '0 to 255': [0, 255], '-1 to 1': [-1, 1]};

/**
 * Says how a model gets its input.
 *
 * @param {Object<string, {shape: number[], dtype: string}>} inputs The manifest's.
 * @returns {{kind: string, name?: string, height?: number, width?: number, channels?: number}}
 *     `kind` is "drawing" for one grey picture, `[1, n * n]` or `[1, height, width, 1]`, "picture"
 *     for one in colours, `[1, height, width, 3]`, and "random" for any other inputs.
 * @throws {ModelError} If LiteRT.js has no arrays for an input.
 */
export function howGiven(inputs) {
  const unknown = Object.values(inputs).filter(({dtype}) => !TYPES[dtype]);
  if (unknown.length) {
    throw new ModelError(
      `LiteRT.js takes inputs of ${Object.keys(TYPES).join(', ')}. Received: ` +
        `${JSON.stringify(inputs)}. A file with int8 inputs is exported with int8_io=True; ` +
        'leave that out.',
    );
  }
  const [[name, {shape, dtype}], ...others] = Object.entries(inputs);
  const side = Math.sqrt(shape[1]);
  const flat = shape.length === 2 && side >= SMALLEST && side % 1 === 0;
  const [height, width, channels] = flat ? [side, side, 1] : shape.slice(1);
  const isPicture = flat || (shape.length === 4 && [1, 3].includes(channels));
  if (others.length || shape[0] !== 1 || dtype === 'int32' || !isPicture) {
    return {kind: 'random'};
  }
  return {kind: channels === 1 ? 'drawing' : 'picture', name, height, width, channels, dtype};
}

/**
 * Turns a picture into an input: its middle, as large as fits, at the size that the model takes.
 *
 * Grey pictures of the data sets have bright ink on a dark ground; one with a bright border, such as
 * a photograph of ink on paper, is inverted.
 *
 * @param {ImageBitmap} bitmap The picture.
 * @param {{height: number, width: number, channels: number, dtype: string}} taken What `howGiven`
 *     returned.
 * @param {number[]} range One of `RANGES`; a model that takes uint8 gets 0 to 255.
 * @returns {Float32Array|Uint8Array} `height * width * channels` values, row by row.
 */
export function fromPicture(bitmap, {height, width, channels, dtype}, range) {
  const canvas = document.createElement('canvas');
  Object.assign(canvas, {height, width});
  const context = canvas.getContext('2d', {willReadFrequently: true});
  context.imageSmoothingQuality = 'high';
  cover(context, bitmap);
  const {data} = context.getImageData(0, 0, width, height);
  const colours = Array.from({length: height * width}, (_, i) => [...data.slice(4 * i, 4 * i + 3)]);
  const greys = colours.map(([red, green, blue]) => 0.299 * red + 0.587 * green + 0.114 * blue);
  const inverted = channels === 1 && border(greys, height, width) > 127.5;
  const values = channels === 3 ? colours.flat() : greys.map((x) => (inverted ? 255 - x : x));
  const [black, white] = dtype === 'uint8' ? [0, 255] : range;
  return TYPES[dtype].from(values, (x) => black + (x / 255) * (white - black));
}

/** Draws the middle of a picture over all of a canvas, not distorted, on black. */
export function cover(context, bitmap) {
  const {height, width} = context.canvas;
  const scale = Math.max(width / bitmap.width, height / bitmap.height);
  const [wide, high] = [bitmap.width * scale, bitmap.height * scale];
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, (width - wide) / 2, (height - high) / 2, wide, high);
}

function border(values, height, width) {
  const edge = values.filter((_, i) => {
    const [row, column] = [Math.floor(i / width), i % width];
    return row % (height - 1) === 0 || column % (width - 1) === 0;
  });
  return edge.reduce((sum, value) => sum + value, 0) / edge.length;
}

/**
 * Makes random inputs: standard normal floats, integers 0 and 1, bytes.
 *
 * @param {Object<string, {shape: number[], dtype: string}>} inputs The manifest's.
 * @returns {Object<string, Float32Array|Int32Array|Uint8Array>} Arrays by name.
 */
export function randomInputs(inputs) {
  const draw = {
    float32: () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random()),
    int32: () => Math.floor(2 * Math.random()),
    uint8: () => Math.floor(256 * Math.random()),
  };
  return Object.fromEntries(
    Object.entries(inputs).map(([name, {shape, dtype}]) => {
      const length = shape.reduce((a, b) => a * b, 1);
      return [name, TYPES[dtype].from({length}, draw[dtype])];
    }),
  );
}
