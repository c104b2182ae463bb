/** Makes the small grey picture that a network was trained on from the strokes of a pen. */

// The strokes are drawn this many times larger than the picture and averaged down.
const OVERSAMPLING = 4;

/**
 * Draws strokes as the pictures of the data sets were made, whatever their size and place were.
 *
 * Pictures below 16 pixels are made as scikit-learn's digits (8x8): the digit fills the height, and
 * its strokes are as thick as makes three tenths of the picture ink. Larger ones are made as MNIST
 * (28x28): the digit fills 20 of 28 pixels, its centre of mass is in the middle.
 *
 * @param {{x: number, y: number}[][]} strokes Points in any unit; y grows downwards. At least one.
 * @param {number} height Rows of the picture.
 * @param {number} width Columns of the picture.
 * @returns {Float32Array} `height * width` values, row by row: 0 is paper, 1 is ink.
 */
export function picture(strokes, height, width) {
  const small = Math.min(height, width) < 16;
  const draw = (pen, [right, down] = [0, 0]) => {
    const room = small ? [height, width] : [(height * 20) / 28, (width * 20) / 28];
    const {scale, x, y} = fit(strokes, room, pen);
    return render(strokes, {height, width, pen, scale, x: x + right / scale, y: y + down / scale});
  };
  if (!small) {
    const pen = (Math.min(height, width) * 2.5) / 28;
    return draw(pen, offset(draw(pen), height, width));
  }
  let [thin, thick] = [0.6, Math.min(height, width) / 2];
  while (thick - thin > 0.02) {
    const middle = (thin + thick) / 2;
    [thin, thick] = mean(draw(middle)) < 0.3 ? [middle, thick] : [thin, middle];
  }
  return draw(thin);
}

/** Scale and middle of a drawing whose ink, half a pen beyond its points, is to fill the room. */
function fit(strokes, [height, width], pen) {
  const [left, right] = extent(strokes.flat().map((point) => point.x));
  const [top, bottom] = extent(strokes.flat().map((point) => point.y));
  const scale = Math.min((height - pen) / (bottom - top), (width - pen) / (right - left));
  return {
    scale: Number.isFinite(scale) ? scale : 1, // a dot fits at any scale
    x: (left + right) / 2,
    y: (top + bottom) / 2,
  };
}

function render(strokes, {height, width, pen, scale, x, y}) {
  const canvas = document.createElement('canvas');
  canvas.width = width * OVERSAMPLING;
  canvas.height = height * OVERSAMPLING;
  const context = canvas.getContext('2d', {willReadFrequently: true});
  context.setTransform(OVERSAMPLING * scale, 0, 0, OVERSAMPLING * scale, 0, 0);
  context.translate(width / 2 / scale - x, height / 2 / scale - y);
  trace(context, strokes, pen / scale);
  const {data} = context.getImageData(0, 0, canvas.width, canvas.height);
  const values = new Float32Array(height * width);
  for (let i = 0; i < canvas.width * canvas.height; i++) {
    const row = Math.floor(i / canvas.width / OVERSAMPLING);
    const column = Math.floor((i % canvas.width) / OVERSAMPLING);
    values[row * width + column] += data[4 * i + 3] / 255 / OVERSAMPLING ** 2;
  }
  return values;
}

/** Draws strokes with a round pen, in the context's `strokeStyle`. */
export function trace(context, strokes, pen) {
  context.lineWidth = pen;
  context.lineCap = 'round';
  context.lineJoin = 'round';
  context.beginPath();
  for (const stroke of strokes) {
    context.moveTo(stroke[0].x, stroke[0].y);
    for (const {x, y} of stroke) {
      context.lineTo(x + pen / 1000, y); // a line of no length would leave no dot
    }
  }
  context.stroke();
}

/** How far the centre of mass lies right of and below the middle, in pixels. */
function offset(values, height, width) {
  let [right, down, sum] = [0, 0, 0];
  values.forEach((value, i) => {
    right += value * ((i % width) + 0.5 - width / 2);
    down += value * (Math.floor(i / width) + 0.5 - height / 2);
    sum += value;
  });
  return [right / sum, down / sum];
}

function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function extent(values) {
  return [Math.min(...values), Math.max(...values)];
}
