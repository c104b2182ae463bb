/**
 * Runs an export of `kt.tflite.export(tesla, directory, mode="percentage_input")` with LiteRT.js.
 *
 *     import {load} from './model.js';
 *
 *     const model = await load('model/');
 *     const {outputs, served} = await model.run({image: new Float32Array(64)}, 35);
 *     outputs.logits; // Float32Array(10)
 *     served.percentage; // 40: a file of 10, 20, .., 100 % serves 35 % by the next higher one
 *
 * The page needs an import map that says where `@litertjs/core` and `@litertjs/wasm-utils` are.
 */

const FORMAT = 1; // of the manifest; another one is refused
const SIGNATURE = 'serving_default';
const WASM = new URL('./node_modules/@litertjs/core/wasm/', import.meta.url).href;

/** What is wrong with an export or the browser, for the person who reads the page. */
export class ModelError extends Error {
  name = 'ModelError';
}

/**
 * Loads an export: `manifest.json`, and the one file that it names.
 *
 * @param {string} directory URL of the export's folder, relative to the page, with a final slash.
 * @param {{wasm?: string}} options `wasm`: URL of the folder with LiteRT.js' WebAssembly files.
 * @returns {Promise<PercentageModel>}
 * @throws {ModelError} If a file is missing, damaged, of another format or mode, or the browser cannot
 *     run it.
 */
export async function load(directory, {wasm = WASM} = {}) {
  checkBrowser();
  const folder = new URL(directory, document.baseURI);
  const manifest = readManifest(await download(new URL('manifest.json', folder)));
  const [file] = manifest.files;
  const content = await download(new URL(file.file, folder));
  await checkDigest(content, file);
  const {Tensor, compiled} = await compile(new Uint8Array(content), wasm);
  const runner = compiled.signatures[SIGNATURE];
  const names = runner?.getInputDetails().map(({name}) => name) ?? [];
  if (!names.includes('percentage')) {
    compiled.delete();
    throw new ModelError(
      `Expected a signature "${SIGNATURE}" with an input "percentage" in ${file.file}. Received ` +
        `the inputs: ${names.join(', ')}. Export with mode="percentage_input".`,
    );
  }
  return new PercentageModel(manifest, compiled, Tensor);
}

/** A model whose cost is chosen at every call. Made by `load`. */
export class PercentageModel {
  #compiled;
  #Tensor;

  constructor(manifest, compiled, Tensor) {
    /** The content of `manifest.json`. */
    this.manifest = manifest;
    /** {name: {shape, dtype}} of the inputs, without the percentage. */
    this.inputs = manifest.inputs;
    /** {name: {shape, dtype}} of the outputs. */
    this.outputs = manifest.outputs;
    /** The percentages of the file, from the lowest to the highest. */
    this.percentages = manifest.percentages.map((entry) => entry.percentage).sort((a, b) => a - b);
    this.#compiled = compiled;
    this.#Tensor = Tensor;
  }

  /**
   * Says what serves a percentage: the next higher one of the file, or its highest.
   *
   * @param {number} percentage Integer, 1..100.
   * @returns {object} The manifest's entry: `percentage`, `multiply_adds`, `accuracy`, ..
   * @throws {RangeError} If it is no such integer.
   */
  served(percentage) {
    if (!Number.isInteger(percentage) || percentage < 1 || percentage > 100) {
      throw new RangeError(
        `A percentage is an integer from 1 to 100. Received: ${JSON.stringify(percentage)}`,
      );
    }
    const next = this.percentages.find((p) => p >= percentage) ?? this.percentages.at(-1);
    return this.manifest.percentages.find((entry) => entry.percentage === next);
  }

  /**
   * Runs the model once.
   *
   * @param {Object<string, Float32Array|Int32Array|Uint8Array>} inputs Values by name, row by row.
   * @param {number} percentage Integer, 1..100.
   * @returns {Promise<{outputs: object, served: object, milliseconds: number}>} Arrays by name; the
   *     manifest's entry of the percentage that ran; the time from arrays to arrays.
   * @throws {RangeError|TypeError} If the percentage or the names of the inputs do not fit.
   */
  async run(inputs, percentage) {
    const served = this.served(percentage);
    const missing = Object.keys(this.inputs).filter((name) => !inputs[name]);
    if (missing.length) {
      throw new TypeError(
        `Expected an array for each input of ${Object.keys(this.inputs)}. Received none for ` +
          `${missing}.`,
      );
    }
    const feed = {};
    let results = {};
    const start = performance.now();
    // LiteRT.js keeps tensors outside the reach of the garbage collector: each is deleted by hand.
    try {
      feed.percentage = new this.#Tensor(Int32Array.of(percentage), [1]);
      for (const [name, {shape}] of Object.entries(this.inputs)) {
        feed[name] = new this.#Tensor(inputs[name], shape);
      }
      results = await this.#compiled.signatures[SIGNATURE].run(feed);
      const outputs = {};
      // In the order of the manifest, by which a page takes the first.
      for (const name of Object.keys(this.outputs)) {
        outputs[name] = await results[name].data();
      }
      return {outputs, served, milliseconds: performance.now() - start};
    } finally {
      for (const tensor of [...Object.values(feed), ...Object.values(results)]) {
        tensor.delete();
      }
    }
  }

  /** Frees the memory of the model, which cannot be run any more. */
  delete() {
    this.#compiled.delete();
  }
}

function checkBrowser() {
  if (typeof WebAssembly !== 'object') {
    throw new ModelError('This browser has no WebAssembly, which runs the model. Try another one.');
  }
  if (!globalThis.crypto?.subtle) {
    throw new ModelError(
      'The file cannot be checked here: browsers compute SHA-256 on pages of https:// and of ' +
        `http://localhost only. Received: ${location.origin}`,
    );
  }
}

async function download(url) {
  let response;
  try {
    response = await fetch(url);
  } catch (error) {
    throw new ModelError(`${url.pathname} could not be fetched. Is the server still running?`, {
      cause: error,
    });
  }
  if (!response.ok) {
    throw new ModelError(
      `Expected an export with ${url.pathname}. Received: ${response.status} ` +
        `${response.statusText}. Export with mode="percentage_input" and serve that folder.`,
    );
  }
  return response.arrayBuffer();
}

function readManifest(content) {
  let manifest;
  try {
    manifest = JSON.parse(new TextDecoder().decode(content));
  } catch (error) {
    throw new ModelError(`manifest.json is damaged: ${error.message}. Export again.`, {
      cause: error,
    });
  }
  if (!Array.isArray(manifest?.percentages) || manifest.format === undefined) {
    throw new ModelError(
      'Expected the manifest.json of an export, with "format" and "percentages". Received: ' +
        `${JSON.stringify(manifest).slice(0, 80)}. Export with the keras_tesla of this page.`,
    );
  }
  if (manifest.format !== FORMAT) {
    throw new ModelError(
      `The manifest has format ${manifest.format}; this page reads format ${FORMAT}. Export the ` +
        'model again with the keras_tesla of this page.',
    );
  }
  if (manifest.mode !== 'percentage_input') {
    throw new ModelError(
      'This model has no percentage input. Expected an export with mode="percentage_input". ' +
        `Received: mode="${manifest.mode}".`,
    );
  }
  return manifest;
}

async function checkDigest(content, {file, sha256, bytes}) {
  const digest = await crypto.subtle.digest('SHA-256', content);
  const hex = Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0'));
  if (hex.join('') !== sha256) {
    throw new ModelError(
      `${file} is damaged, or not the file that manifest.json was written with: expected ${bytes} ` +
        `bytes with SHA-256 ${sha256.slice(0, 8)}… Received: ${content.byteLength} bytes with ` +
        `${hex.slice(0, 4).join('')}… Copy or export it again.`,
    );
  }
}

async function compile(content, wasm) {
  let litert;
  try {
    litert = await import('@litertjs/core');
    await (litert.getGlobalLiteRtPromise() ?? litert.loadLiteRt(wasm));
  } catch (error) {
    throw new ModelError(
      `LiteRT.js could not be loaded from ${wasm}. Install it with tools/setup_browser.sh. ` +
        `Received: ${error?.message ?? error}`,
      {cause: error},
    );
  }
  try {
    // On the CPU: it is what was compared with Python, and a GPU runs none of the branches.
    const compiled = await litert.loadAndCompile(content, {accelerator: 'wasm'});
    return {Tensor: litert.Tensor, compiled};
  } catch (error) {
    throw new ModelError(`LiteRT.js could not read the model: ${error?.message ?? error}`, {
      cause: error,
    });
  }
}
