/** What the outputs of a model say, as rows for the page. */

const MOST = 10; // rows; of more classes, these are the most probable

/**
 * Reads the outputs of one call.
 *
 * @param {Object<string, ArrayLike<number>>} outputs Arrays by name.
 * @param {boolean} classes Whether the first output has a number for each class.
 * @param {string[]|undefined} labels Names of the classes.
 * @returns {{answer: string, detail: string, rows: {label: string, share: number, value: string,
 *     best: boolean}[]}} `share` is the length of a row's bar, 0..1.
 */
export function read(outputs, classes, labels) {
  return classes ? ofClasses(Object.values(outputs)[0], labels) : ofNumbers(outputs);
}

function ofClasses(values, labels) {
  const chances = probabilities(values);
  const best = chances.indexOf(Math.max(...chances));
  const name = (i) => labels?.[i] ?? String(i);
  let shown = chances.map((_, i) => i);
  if (shown.length > MOST) {
    shown = shown.sort((a, b) => chances[b] - chances[a]).slice(0, MOST);
  }
  return {
    answer: name(best),
    detail: percent(chances[best]),
    rows: shown.map((i) => ({
      label: name(i),
      share: chances[i],
      value: percent(chances[i]),
      best: i === best,
    })),
  };
}

function ofNumbers(outputs) {
  const numbers = Object.entries(outputs).flatMap(([name, values]) =>
    Array.from(values, (value, i) => ({label: values.length > 1 ? `${name}[${i}]` : name, value})),
  );
  const shown = numbers.slice(0, MOST);
  const largest = Math.max(...shown.map(({value}) => Math.abs(value)), Number.MIN_VALUE);
  const [{value}] = numbers;
  return {
    answer: numbers.length === 1 ? value.toPrecision(4) : '–',
    detail: numbers.length > MOST ? `the first ${MOST} of ${numbers.length} numbers` : '',
    rows: shown.map((row) => ({
      label: row.label,
      share: Math.abs(row.value) / largest,
      value: row.value.toPrecision(4),
      best: false,
    })),
  };
}

/**
 * The values as they are if they are probabilities already, else their softmax. Those of an int8
 * file are multiples of 1/256, so they add up to 1 only roughly.
 */
function probabilities(values) {
  const slack = Math.min(Math.max(0.01, values.length / 512), 0.5);
  const total = values.reduce((sum, value) => sum + value, 0);
  if (values.every((value) => value >= 0 && value <= 1) && Math.abs(total - 1) <= slack) {
    return Array.from(values);
  }
  const largest = Math.max(...values);
  const powers = Array.from(values, (value) => Math.exp(value - largest));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)}\u00a0%`;
