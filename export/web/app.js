/** The page: drawing, slider, figures. `model.js` runs the model, `picture.js` prepares its input. */

import {EXAMPLES} from './examples.js';
import {load, ModelError} from './model.js';
import {picture, trace} from './picture.js';

const PEN = 0.07; // of the width of the drawing area
const CALLS = 50; // the latency is their median
const BURST = 5; // milliseconds; the first call after a pause is slower than those that follow

const element = (id) => document.getElementById(id);
const drawing = element('drawing');
const slider = element('percentage');

let model;
let input; // name, height and width of the picture that the model takes
let strokes = []; // of points x, y in 0..1
let pixels; // of the strokes; undefined after they changed
let times = []; // milliseconds of the last calls at the percentage that runs
let callsLeft = 0;
let running = false;
let nextExample = 0;

function pictureInput({inputs}) {
  const [[name, {shape, dtype}], ...others] = Object.entries(inputs);
  const side = Math.sqrt(shape[1]);
  const [height, width, channels] = shape.length === 2 ? [side, side, 1] : shape.slice(1);
  if (others.length || dtype !== 'float32' || shape[0] !== 1 || channels !== 1 || height % 1) {
    throw new ModelError(
      'This page draws one grey picture: it takes a model with one float32 input of shape ' +
        `[1, n * n] or [1, height, width, 1]. Received: ${JSON.stringify(inputs)}`,
    );
  }
  return {name, height, width};
}

/** Runs the model in bursts, one a frame, until the median is over `CALLS` calls. */
async function run() {
  callsLeft = CALLS;
  if (running) {
    return;
  }
  running = true;
  while (callsLeft > 0 && strokes.length) {
    await new Promise(requestAnimationFrame);
    if (strokes.length) {
      await burst();
    }
  }
  running = false;
}

async function burst() {
  pixels ??= picture(strokes, input.height, input.width);
  const used = pixels;
  const end = performance.now() + BURST;
  let result;
  do {
    result = await model.run({[input.name]: used}, slider.valueAsNumber);
    times.push(result.milliseconds);
    callsLeft -= 1;
  } while (callsLeft > 0 && performance.now() < end);
  times = times.slice(-CALLS);
  if (used === pixels) {
    showResult(result);
  }
}

function drawingChanged() {
  pixels = undefined;
  showDrawing();
  if (!strokes.length) {
    showNothing();
  }
  return run();
}

function percentageChanged() {
  const chosen = slider.valueAsNumber;
  const {percentage, multiply_adds: cost, accuracy} = model.served(chosen);
  const full = model.served(100).multiply_adds;
  const ofFull = percentage === model.percentages.at(-1) ? '' : ` (${percent(cost / full, 0)})`;
  element('chosen').textContent = `${chosen} %`;
  element('served').textContent = `${percentage} %`;
  element('cost').textContent = cost.toLocaleString('en') + ofFull;
  element('accuracy').textContent = percent(accuracy);
  element('accuracy-row').hidden = accuracy === null;
  slider.ariaValueText = `${chosen} %, runs at ${percentage} %`;
  times = [];
  return run();
}

function showResult({outputs}) {
  const chances = probabilities(Object.values(outputs)[0]);
  const best = chances.indexOf(Math.max(...chances));
  // Screen readers say what is set, also when it was there before.
  if (element('prediction').textContent !== String(best)) {
    element('prediction').textContent = best;
  }
  element('confidence').textContent = percent(chances[best]);
  element('latency').textContent = duration(median(times));
  showClasses(chances, best);
  showSeen();
}

function showNothing() {
  element('prediction').textContent = '–';
  element('confidence').textContent = 'Draw a digit.';
  element('latency').textContent = '–';
  element('classes').replaceChildren();
  element('seen').getContext('2d').clearRect(0, 0, input.width, input.height);
}

function showClasses(chances, best) {
  const list = element('classes');
  if (list.children.length !== chances.length) {
    list.replaceChildren(...chances.map(() => element('class').content.cloneNode(true)));
  }
  chances.forEach((chance, i) => {
    const row = list.children[i];
    row.classList.toggle('best', i === best);
    row.style.setProperty('--chance', chance);
    row.querySelector('.label').textContent = i;
    row.querySelector('.value').textContent = percent(chance);
  });
}

function showSeen() {
  const context = element('seen').getContext('2d');
  const image = context.createImageData(input.width, input.height);
  const [red, green, blue] = getComputedStyle(drawing).color.match(/\d+/g).map(Number);
  pixels.forEach((value, i) => image.data.set([red, green, blue, 255 * value], 4 * i));
  context.putImageData(image, 0, 0);
}

function showDrawing() {
  const context = drawing.getContext('2d');
  context.resetTransform();
  context.clearRect(0, 0, drawing.width, drawing.height);
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

/** The values as they are if they are probabilities already, else their softmax. */
function probabilities(values) {
  const total = values.reduce((sum, value) => sum + value, 0);
  if (values.every((value) => value >= 0) && Math.abs(total - 1) < 1e-3) {
    return Array.from(values);
  }
  const largest = Math.max(...values);
  const powers = Array.from(values, (value) => Math.exp(value - largest));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = (sorted.length - 1) / 2;
  return (sorted[Math.floor(middle)] + sorted[Math.ceil(middle)]) / 2;
}

const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)}\u00a0%`;
const duration = (ms) => (ms < 1 ? `${(1000 * ms).toFixed(0)} µs` : `${ms.toFixed(1)} ms`);

function listen() {
  const point = ({clientX, clientY}) => {
    const {left, top, width, height} = drawing.getBoundingClientRect();
    return {x: (clientX - left) / width, y: (clientY - top) / height};
  };
  const on = (target, type, callback) => target.addEventListener(type, guarded(callback));
  on(drawing, 'pointerdown', (event) => {
    if (event.isPrimary && event.button === 0) {
      drawing.setPointerCapture(event.pointerId);
      strokes = [...strokes, [point(event)]];
      return drawingChanged();
    }
  });
  on(drawing, 'pointermove', (event) => {
    if (event.isPrimary && drawing.hasPointerCapture(event.pointerId)) {
      strokes.at(-1).push(point(event));
      return drawingChanged();
    }
  });
  on(element('example'), 'click', () => {
    strokes = EXAMPLES[nextExample];
    nextExample = (nextExample + 1) % EXAMPLES.length;
    return drawingChanged();
  });
  on(element('clear'), 'click', () => {
    strokes = [];
    return drawingChanged();
  });
  on(slider, 'input', percentageChanged);
}

async function start() {
  model = await load('model/');
  input = pictureInput(model);
  for (const percentage of model.percentages) {
    element('ticks').append(new Option('', percentage));
  }
  element('seen').width = input.width;
  element('seen').height = input.height;
  element('status').hidden = true;
  element('main').hidden = false;
  drawing.width = drawing.clientWidth * devicePixelRatio;
  drawing.height = drawing.clientHeight * devicePixelRatio;
  listen();
  showNothing();
  percentageChanged();
}

guarded(start)();
