/** The page: what goes in, the slider, what comes out. `model.js` runs the model. */

import {EXAMPLES} from './examples.js';
import {cover, fromPicture, howGiven, randomInputs, RANGES} from './inputs.js';
import {load, ModelError} from './model.js';
import {picture, trace} from './picture.js';
import {percent, read} from './results.js';

const PEN = 0.07; // of the width of the drawing area
const CALLS = 50; // the latency is their median
const BURST = 5; // milliseconds; the first call after a pause is slower than those that follow
const HINTS = {
  drawing: 'Draw, or drop a picture.',
  picture: 'Drop a picture.',
  random: 'Press the button.',
};

const element = (id) => document.getElementById(id);
const drawing = element('drawing');
const slider = element('percentage');

let model;
let taken; // what the model takes, see `howGiven`
let classes; // whether the first output has a number for each class
let strokes = []; // of points x, y in 0..1
let bitmap; // the picture that was dropped, in their place
let feed; // the model's inputs; undefined where there are none, or they changed
let times = []; // milliseconds of the last calls at the percentage that runs
let callsLeft = 0;
let running = false;
let nextExample = 0;

const isGiven = () => Boolean(strokes.length || bitmap || feed);

/** Runs the model in bursts, one a frame, until the median is over `CALLS` calls. */
async function run() {
  callsLeft = CALLS;
  if (running) {
    return;
  }
  running = true;
  while (callsLeft > 0 && isGiven()) {
    await new Promise(requestAnimationFrame);
    if (isGiven()) {
      await burst();
    }
  }
  running = false;
}

async function burst() {
  feed ??= {[taken.name]: pixels()};
  const used = feed;
  const end = performance.now() + BURST;
  let result;
  do {
    result = await model.run(used, slider.valueAsNumber);
    times.push(result.milliseconds);
    callsLeft -= 1;
  } while (callsLeft > 0 && performance.now() < end);
  times = times.slice(-CALLS);
  if (used === feed) {
    showResult(result);
  }
}

/** The input of a model that takes a picture. */
function pixels() {
  const range = RANGES[element('range').value];
  if (bitmap) {
    return fromPicture(bitmap, taken, range);
  }
  const [black, white] = taken.dtype === 'uint8' ? [0, 255] : range;
  const values = picture(strokes, taken.height, taken.width);
  const scaled = values.map((value) => black + value * (white - black));
  return taken.dtype === 'uint8' ? Uint8Array.from(scaled) : scaled;
}

function inputChanged(values) {
  feed = values;
  showDrawing();
  if (!isGiven()) {
    showNothing();
  }
  return run();
}

function percentageChanged() {
  const chosen = slider.valueAsNumber;
  const {percentage, multiply_adds: cost, accuracy, not_counted: others} = model.served(chosen);
  const full = model.served(100);
  let more = '';
  if (others) {
    more = ` without ${others.join(', ')}`;
  } else if (percentage !== full.percentage && !full.not_counted) {
    more = ` (${percent(cost / full.multiply_adds, 0)})`;
  }
  element('chosen').textContent = `${chosen} %`;
  element('served').textContent = `${percentage} %`;
  element('cost').textContent = cost.toLocaleString('en') + more;
  element('accuracy').textContent = percent(accuracy);
  element('accuracy-row').hidden = accuracy === null;
  slider.ariaValueText = `${chosen} %, runs at ${percentage} %`;
  times = [];
  return run();
}

function showResult({outputs}) {
  const {answer, detail, rows} = read(outputs, classes, model.manifest.labels);
  const prediction = element('prediction');
  // Screen readers say what is set, also when it was there before.
  if (prediction.textContent !== answer) {
    prediction.textContent = answer;
    prediction.classList.toggle('word', answer.length > 3);
  }
  element('confidence').textContent = detail;
  element('latency').textContent = duration(median(times));
  showRows(rows);
  showSeen();
}

function showNothing() {
  element('prediction').textContent = '–';
  element('prediction').classList.remove('word');
  element('confidence').textContent = HINTS[taken.kind];
  element('latency').textContent = '–';
  element('classes').replaceChildren();
  element('seen').getContext('2d').clearRect(0, 0, taken.width, taken.height);
}

function showRows(rows) {
  const list = element('classes');
  if (list.children.length !== rows.length) {
    list.replaceChildren(...rows.map(() => element('class').content.cloneNode(true)));
  }
  const longest = Math.max(...rows.map(({label}) => label.length));
  list.style.setProperty('--label', `${0.6 * Math.min(longest + 1, 14)}rem`);
  rows.forEach(({label, share, value, best}, i) => {
    const row = list.children[i];
    row.classList.toggle('best', best);
    row.style.setProperty('--share', share);
    row.querySelector('.label').textContent = label;
    row.querySelector('.value').textContent = value;
  });
}

/** Draws the picture that the model gets, whatever the range of its numbers is. */
function showSeen() {
  if (taken.kind === 'random') {
    return;
  }
  const context = element('seen').getContext('2d');
  const image = context.createImageData(taken.width, taken.height);
  const values = feed[taken.name];
  const [black, white] = taken.dtype === 'uint8' ? [0, 255] : RANGES[element('range').value];
  const byte = (value) => (255 * (value - black)) / (white - black);
  const ink = getComputedStyle(drawing).color.match(/\d+/g).map(Number);
  for (let i = 0; i < taken.height * taken.width; i++) {
    const pixel =
      taken.channels === 3
        ? [...values.slice(3 * i, 3 * i + 3)].map(byte).concat(255)
        : [...ink.slice(0, 3), byte(values[i])];
    image.data.set(pixel, 4 * i);
  }
  context.putImageData(image, 0, 0);
}

function showDrawing() {
  const context = drawing.getContext('2d');
  context.resetTransform();
  context.clearRect(0, 0, drawing.width, drawing.height);
  if (bitmap) {
    cover(context, bitmap);
    return;
  }
  context.scale(drawing.width, drawing.height);
  context.strokeStyle = getComputedStyle(drawing).color;
  trace(context, strokes, PEN);
}

function showError(error) {
  console.error(error);
  element('status').hidden = true;
  element('main').hidden = true;
  element('error').hidden = false;
  element('error').textContent = error instanceof ModelError ? error.message : String(error);
}

/** The function with every error of it shown. */
function guarded(callback) {
  return async (...values) => {
    try {
      await callback(...values);
    } catch (error) {
      showError(error);
    }
  };
}

function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = (sorted.length - 1) / 2;
  return (sorted[Math.floor(middle)] + sorted[Math.ceil(middle)]) / 2;
}

const duration = (ms) => (ms < 1 ? `${(1000 * ms).toFixed(0)} µs` : `${ms.toFixed(1)} ms`);

const on = (target, type, callback) => target.addEventListener(type, guarded(callback));

function listenToPen() {
  const point = ({clientX, clientY}) => {
    const {left, top, width, height} = drawing.getBoundingClientRect();
    return {x: (clientX - left) / width, y: (clientY - top) / height};
  };
  on(drawing, 'pointerdown', (event) => {
    if (event.isPrimary && event.button === 0) {
      drawing.setPointerCapture(event.pointerId);
      strokes = [...(bitmap ? [] : strokes), [point(event)]];
      bitmap = undefined;
      return inputChanged();
    }
  });
  on(drawing, 'pointermove', (event) => {
    if (event.isPrimary && drawing.hasPointerCapture(event.pointerId)) {
      strokes.at(-1).push(point(event));
      return inputChanged();
    }
  });
}

function listenToPictures() {
  const open = async (file) => {
    if (!file) {
      return;
    }
    try {
      bitmap = await createImageBitmap(file);
    } catch {
      element('confidence').textContent = `${file.name} is no picture that this browser reads.`;
      return;
    }
    strokes = [];
    return inputChanged();
  };
  on(element('choose'), 'click', () => element('file').click());
  on(element('file'), 'change', () => open(element('file').files[0]));
  on(document, 'dragover', (event) => event.preventDefault());
  on(document, 'drop', (event) => {
    event.preventDefault();
    return open(event.dataTransfer.files[0]);
  });
  on(element('range'), 'change', () => inputChanged());
}

function listen() {
  if (taken.kind === 'drawing') {
    listenToPen();
  }
  if (taken.kind !== 'random') {
    listenToPictures();
  }
  on(element('example'), 'click', () => {
    if (taken.kind !== 'drawing') {
      bitmap = undefined;
      return inputChanged(randomInputs(model.inputs));
    }
    strokes = EXAMPLES[nextExample];
    bitmap = undefined;
    nextExample = (nextExample + 1) % EXAMPLES.length;
    return inputChanged();
  });
  on(element('clear'), 'click', () => {
    strokes = [];
    bitmap = undefined;
    return inputChanged();
  });
  on(slider, 'input', percentageChanged);
}

/** Shows what fits the model. */
function prepare() {
  const shapes = Object.entries(model.inputs).map(
    ([name, {shape, dtype}]) => `${name}: ${dtype} [${shape.join(', ')}]`,
  );
  document.title = element('name').textContent = model.manifest.name;
  element('shapes').textContent = shapes.join('; ');
  element('input').classList.add(taken.kind);
  element('rows-title').textContent = classes ? 'Probabilities' : 'Outputs';
  element('example').textContent = taken.kind === 'drawing' ? 'Example' : 'Random input';
  element('pixels').hidden = taken.dtype === 'uint8';
  element('range').replaceChildren(...Object.keys(RANGES).map((name) => new Option(name)));
  for (const percentage of model.percentages) {
    element('ticks').append(new Option('', percentage));
  }
  if (taken.kind !== 'random') {
    Object.assign(element('seen'), {width: taken.width, height: taken.height});
  }
}

async function start() {
  model = await load('model/');
  taken = howGiven(model.inputs);
  const [{shape}] = Object.values(model.outputs);
  const known = model.manifest.labels || model.served(100).accuracy !== null;
  const isRow = shape.length === 2 && shape[0] === 1 && shape[1] > 1;
  classes = isRow && (known || taken.kind !== 'random');
  prepare();
  element('status').hidden = true;
  element('main').hidden = false;
  drawing.width = drawing.clientWidth * devicePixelRatio;
  drawing.height = drawing.clientHeight * devicePixelRatio;
  listen();
  showNothing();
  percentageChanged();
}

guarded(start)();
